"""Opens the search database: SQLite set up for several processes, or any other database SQLAlchemy reaches by URL."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from mixrec_automl.store.file_systems import network_file_system
from mixrec_automl.store.models import SCHEMA_VERSION, Base, SchemaVersionRow
from trainers.errors import UserError

BUSY_SECONDS = 5
"""How long a process waits for another one's write, which takes milliseconds; a controller then asks again, and can be
stopped in between."""
READ_ONLY = "mixrec_read_only"
"""Execution option of a connection whose transactions only read."""


def open_engine(url: str) -> Engine:
    """An engine on `url`, whose tables exist and have this version's form.

    Raises:
        UserError: the URL is not valid, its driver is not installed, the database does not answer, or its tables
            were made by another version.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UserError(
            f"{url!r} is no database URL: write sqlite:////folder/file.db or postgresql+psycopg://..."
        ) from error
    shown = parsed.render_as_string(hide_password=True)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        _make_folder(parsed)
    waits = {"timeout": BUSY_SECONDS} if is_sqlite else {}
    try:
        engine = create_engine(parsed, connect_args=waits, pool_pre_ping=not is_sqlite)
    except (NoSuchModuleError, ModuleNotFoundError, ArgumentError) as error:
        raise UserError(
            f"no driver for the database {shown} ({error}): for PostgreSQL, pip install 'psycopg[binary]'"
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.driver == "psycopg":
        from mixrec_automl.store import postgres  # here, since its driver is an extra

        postgres.set_up(engine)
    try:
        _make_tables(engine)
        _check_version(engine, shown)
    except UserError:
        engine.dispose()
        raise
    except (DBAPIError, sqlite3.Error) as error:  # the bare one: from a set-up statement on a file of another kind
        engine.dispose()
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise UserError(f"cannot use the database {shown}: {' '.join(str(reason).split())}") from error
    return engine


def _make_folder(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise UserError("a search database in memory would be lost: name a file, as in sqlite:////folder/file.db")
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder} of the database: {error.strerror}") from error
    kind = network_file_system(folder)
    if kind is not None:
        raise UserError(
            f"{folder} lies on a network file system ({kind}), where SQLite loses data: name a local folder in "
            "MIXREC_HOME, or a PostgreSQL database in MIXREC_DATABASE_URL"
        )


def _set_up_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's own transaction control would begin late and without the write lock; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that writes takes the write lock at once: upgrading a read lock can fail instead of waiting.
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _make_tables(engine: Engine) -> None:
    if inspect(engine).has_table(SchemaVersionRow.__tablename__):
        return
    try:
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
            if connection.scalar(select(SchemaVersionRow.version)) is None:
                connection.execute(insert(SchemaVersionRow).values(version=SCHEMA_VERSION))
    except DBAPIError as error:
        # Two processes that start together on an empty server: the other one was faster.
        if not isinstance(error, IntegrityError) and not inspect(engine).has_table(SchemaVersionRow.__tablename__):
            raise


def _check_version(engine: Engine, shown: str) -> None:
    with engine.execution_options(**{READ_ONLY: True}).begin() as connection:
        found = connection.scalar(select(SchemaVersionRow.version))
    if found != SCHEMA_VERSION:
        raise UserError(
            f"the database {shown} has tables of version {found}, but this mixrec-automl needs version "
            f"{SCHEMA_VERSION}: use the mixrec-automl that made it, or name another one in MIXREC_DATABASE_URL"
        )


def without_password(url: str) -> str:
    """A database's or MLflow's address, fit to be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:  # a folder, or a server without a scheme that SQLAlchemy knows
        return url
