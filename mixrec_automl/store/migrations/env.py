"""Run by Alembic for each of its commands, on the connection and in the transaction of `store.migration`."""

from __future__ import annotations

from alembic import context

from mixrec_automl.store.models import Base
from mixrec_automl.store.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], version_table=VERSION_TABLE, target_metadata=Base.metadata
)
context.run_migrations()
