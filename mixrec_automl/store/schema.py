"""The revision of a database's tables, as Alembic keeps it; read without Alembic, which takes long to import."""

from __future__ import annotations

from sqlalchemy import Connection, String, column, inspect, select, table

HEAD = "0002"
"""The last of `migrations/versions`, which makes the tables of `models`: every change of those is a migration."""
VERSION_TABLE = "mixrec_alembic_version"
"""Of a name of our own: MLflow's tables, with an `alembic_version`, may lie in the same database."""

_versions = table(VERSION_TABLE, column("version_num", String))


def revision_of(connection: Connection) -> str | None:
    """None where the database has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(_versions.c.version_num))
