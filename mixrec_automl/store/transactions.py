"""Short transactions on one engine. What a later try may mend is told apart from errors of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from mixrec_automl.store.engine import READ_ONLY
from mixrec_automl.store.errors import DatabaseUnavailableError


class Transactions:
    """Opens them; safe to share between threads.

    Both kinds raise DatabaseUnavailableError. A transaction of which it is raised may have been committed all the
    same, where the answer was lost on the way: whoever repeats it makes it so that a repeat changes nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**{READ_ONLY: True})

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with _telling_outages(), Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with _telling_outages(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _telling_outages() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError(str(error)) from error
    except DBAPIError as error:
        # A server that ends a session may give a reason of any class, such as a transaction that stood still.
        if not isinstance(error, OperationalError | InterfaceError) and not error.connection_invalidated:
            raise
        raise DatabaseUnavailableError(" ".join(str(error.orig).split())) from error
