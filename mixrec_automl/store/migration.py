"""Makes the tables and changes them from revision to revision, by Alembic and the scripts in `migrations/versions`.

A step is a whole: it succeeds, or leaves the database as it was. Importing this takes long; see `schema`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, inspect, select

from mixrec_automl.store import schema
from mixrec_automl.store.clock import database_seconds
from mixrec_automl.store.errors import WrongRevisionError
from mixrec_automl.store.models import Base, SearchRow
from mixrec_automl.store.schema import VERSION_TABLE, revision_of
from trainers.errors import UserError
from trainers.secrecy import without_secrets

FOLDER = Path(__file__).with_name("migrations")
BASE = "base"
"""Alembic's word for a database without tables"""
UPGRADE = "mixrec-automl database upgrade"
LOCK = 0x6D6978726563
"""Number of the advisory lock on PostgreSQL, "mixrec" in ASCII."""


def bring_up(engine: Engine) -> None:
    """Make the tables where there are none; no change where another process was faster.

    Raises:
        WrongRevisionError: there are tables of another revision.
        UserError: there are tables of another program.
    """
    with _alone(engine) as connection:
        found = revision_of(connection)
        if found is None:
            _make_tables(connection)
        elif found != schema.HEAD:
            raise _wrong(connection, found)


def upgrade(engine: Engine, *, force: bool = False) -> str | None:
    """Bring the tables to `schema.HEAD`, or make them, and return the revision before.

    Args:
        force: also while a search is run.

    Raises:
        WrongRevisionError: the tables are newer than this program.
        UserError: a search is run, or there are tables of another program.
    """
    with _alone(engine) as connection:
        found = revision_of(connection)
        if found is None:
            _make_tables(connection)
        elif found != schema.HEAD:
            _check_known(connection, found)
            _check_idle(connection, force)
            command.upgrade(_config(connection), schema.HEAD)
    return found


def downgrade(engine: Engine, revision: str, *, force: bool = False) -> str:
    """Go back to `revision`, or to `BASE`, and return the revision before; what came after it is lost.

    Args:
        force: also while a search is run.

    Raises:
        WrongRevisionError: the tables are newer than this program.
        UserError: a search is run, there are no tables, or `revision` is none of those before.
    """
    with _alone(engine) as connection:
        found = _check_before(connection, revision)
        _check_idle(connection, force)
        command.downgrade(_config(connection), revision)
        if revision == BASE:
            Table(VERSION_TABLE, MetaData()).drop(connection)
    return found


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction beside which nobody else makes or changes tables."""
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        connection.detach()  # from the pool: nobody else gets it with the setting below
        if is_sqlite:
            # A column is changed by making its table anew, and DROP TABLE would delete the rows that refer to the old
            # one. SQLite takes this setting outside a transaction only.
            connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        with connection.begin():  # on SQLite it takes the lock of all writers
            if not is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            yield connection
            if is_sqlite and (orphan := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                raise RuntimeError(f"a migration leaves rows of {orphan[0]} without their row of {orphan[2]}")


def check_downgrade(engine: Engine, revision: str) -> str:
    """The present revision, from which `downgrade` could go to `revision`. Raises as it does."""
    with engine.begin() as connection:
        return _check_before(connection, revision)


def check_free(connection: Connection) -> None:
    """Raises UserError: there are tables without a revision, which have our names and are not ours."""
    taken = sorted({*Base.metadata.tables} & {*inspect(connection).get_table_names()})
    if taken:
        raise UserError(
            f"the database {_shown(connection.engine)} has tables of another program, or of a mixrec-automl before its "
            f"first release ({', '.join(taken)}): name another one in MIXREC_DATABASE_URL"
        )


def _make_tables(connection: Connection) -> None:
    check_free(connection)
    command.upgrade(_config(connection), schema.HEAD)


def _check_before(connection: Connection, revision: str) -> str:
    found = revision_of(connection)
    if found is None:
        check_free(connection)
        raise UserError(f"the database {_shown(connection.engine)} has no tables")
    _check_known(connection, found)
    before = [BASE, *reversed([script.revision for script in _scripts().iterate_revisions(found, BASE)])]
    if revision not in before:
        raise UserError(f"no revision {revision!r} to go back to: choose one of {', '.join(before)}")
    return found


def _check_known(connection: Connection, found: str) -> None:
    if found not in _known():
        raise _wrong(connection, found)


def _check_idle(connection: Connection, force: bool) -> None:
    if force:
        return
    if connection.dialect.name == "postgresql":  # nobody takes a lease from now on
        connection.exec_driver_sql(f"LOCK TABLE {SearchRow.__tablename__} IN EXCLUSIVE MODE")
    # Columns that every revision has: the database may be at any.
    held = select(SearchRow.name, SearchRow.lease_holder).where(SearchRow.lease_until > database_seconds())
    running = connection.execute(held.order_by(SearchRow.name)).first()
    if running is not None:
        raise UserError(
            f"search {running.name} is run by {running.lease_holder}: stop it first, there or by the version that runs "
            "it, or give --force"
        )


def _wrong(connection: Connection, found: str) -> WrongRevisionError:
    told = f"the database {_shown(connection.engine)} is at revision {found}"
    if found in _known():
        return WrongRevisionError(
            f"{told}, older than {schema.HEAD}, which this mixrec-automl needs",
            f"stop its searches, back it up, then `{UPGRADE}`",
        )
    return WrongRevisionError(f"{told}, which this mixrec-automl does not know", "use a newer mixrec-automl")


def _shown(engine: Engine) -> str:
    return without_secrets(engine.url.render_as_string(hide_password=True))


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}
