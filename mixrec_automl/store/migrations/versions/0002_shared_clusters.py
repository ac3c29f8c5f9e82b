"""Whose a search is, and what it has of a cluster that it shares with others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = {
    "owner": sa.Text,
    "lease_cluster": sa.Text,
    "slots_wanted": sa.Integer,
    "slots_allotted": sa.Integer,
    "slots_note": sa.Text,
}
"""All may be empty: of searches of before nobody knows the owner."""


def upgrade() -> None:
    with op.batch_alter_table("search") as table:
        for name, kind in COLUMNS.items():
            table.add_column(sa.Column(name, kind))


def downgrade() -> None:
    with op.batch_alter_table("search") as table:
        for name in COLUMNS:
            table.drop_column(name)
