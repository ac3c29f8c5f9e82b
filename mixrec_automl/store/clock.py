"""The database's own clock: the one that all controllers of a search agree on, whatever their machines' clocks say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Double, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement


class database_seconds(FunctionElement[float]):  # noqa: N801 - named like the SQL function it stands for
    """Seconds since 1970 at the moment of the statement, not of its transaction's begin."""

    type = Double()
    inherit_cache = True


@compiles(database_seconds, "sqlite")
def _on_sqlite(_element: Any, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_seconds, "postgresql")
def _on_postgresql(_element: Any, _compiler: Any, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def seconds_now(session: Session) -> float:
    """Asked after a lock has been waited for, so that the wait counts."""
    return float(session.scalars(select(database_seconds())).one())


def moment_now(session: Session) -> datetime:
    """The same with a date, in UTC."""
    return datetime.fromtimestamp(seconds_now(session), UTC)
