"""Opens the search database: SQLite set up for several processes, or any other database SQLAlchemy reaches by URL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from mixrec_automl.store import schema
from mixrec_automl.store.file_systems import network_file_system
from trainers.errors import UserError

BUSY_SECONDS = 5
"""How long a process waits for another one's write, which takes milliseconds; a controller then asks again, and can be
stopped in between."""
READ_ONLY = "mixrec_read_only"
"""Execution option of a connection whose transactions only read."""


def open_engine(url: str) -> Engine:
    """An engine on `url`, whose tables have this version's form; they are made where there are none.

    Raises:
        UserError: the URL is not valid, its driver is not installed, the database does not answer, or it has tables of
            another program.
        WrongRevisionError: its tables have another revision.
    """
    engine = _connect(url)
    try:
        with _telling_trouble(engine):
            if current_revision(engine) != schema.HEAD:
                from mixrec_automl.store import migration  # here, since Alembic takes long to import

                migration.bring_up(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def engine_to_migrate(url: str, *, long_statements: bool = True) -> Iterator[Engine]:
    """An engine on `url` whatever tables it has, whose statements may take long unless told otherwise.

    Raises:
        UserError: as `open_engine`, and for what the database refuses within the context.
    """
    engine = _connect(url, long_statements=long_statements)
    try:
        with _telling_trouble(engine):
            yield engine
    finally:
        engine.dispose()


def current_revision(engine: Engine) -> str | None:
    """Of the tables; None where there are none. Takes no lock."""
    with engine.execution_options(**{READ_ONLY: True}).begin() as connection:
        return schema.revision_of(connection)


def _connect(url: str, *, long_statements: bool = False) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UserError(
            f"{url!r} is no database URL: write sqlite:////folder/file.db or postgresql+psycopg://..."
        ) from error
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        _make_folder(parsed)
    waits = {"timeout": BUSY_SECONDS} if is_sqlite else {}
    try:
        engine = create_engine(parsed, connect_args=waits, pool_pre_ping=not is_sqlite)
    except (NoSuchModuleError, ModuleNotFoundError, ArgumentError) as error:
        shown = parsed.render_as_string(hide_password=True)
        raise UserError(
            f"no driver for the database {shown} ({error}): for PostgreSQL, pip install 'psycopg[binary]'"
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.driver == "psycopg":
        from mixrec_automl.store import postgres  # here, since its driver is an extra

        postgres.set_up(engine, long_statements=long_statements)
    return engine


@contextmanager
def _telling_trouble(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:  # the bare one: from a set-up statement on a file of another kind
        reason = error.orig if isinstance(error, DBAPIError) else error
        shown = engine.url.render_as_string(hide_password=True)
        raise UserError(f"cannot use the database {shown}: {' '.join(str(reason).split())}") from error


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
