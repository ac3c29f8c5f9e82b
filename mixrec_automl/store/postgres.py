"""PostgreSQL by psycopg, so that no call waits without end, whatever becomes of server, network or other controllers.

By itself a client waits forever for a server that stands still, since the server's kernel goes on acknowledging. And a
controller that stands still in the middle of a write would keep the search's row locked forever, its lease run out or
not: then nobody could take the search over.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, event

CONNECT_SECONDS = 5
"""For a new connection, to each of the server's addresses."""
IDLE_SECONDS = 10
"""After this long in the middle of a transaction without a word from its client, the server undoes it."""
LOCK_SECONDS = 12
"""How long a write waits for another one; longer than `IDLE_SECONDS`, so that it outlasts a client that is gone."""
SILENT_SECONDS = 15
"""How long a server may leave a statement without any answer; longer than `LOCK_SECONDS`."""

T = TypeVar("T")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives up after `SILENT_SECONDS` without a sign of the server, and is closed then."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Where all of psycopg waits for an answer. Raises psycopg.OperationalError."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        until = time.monotonic() + SILENT_SECONDS
        try:
            needed = next(gen)
            while True:
                ready = yield needed  # psycopg comes back several times in a second, also where nothing is ready
                if ready:
                    until = time.monotonic() + SILENT_SECONDS
                elif time.monotonic() > until:
                    self.close()  # what is still to come would be taken for the answer to the next statement
                    raise psycopg.OperationalError(f"the server has been silent for {SILENT_SECONDS} seconds")
                needed = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


def set_up(engine: Engine, *, long_statements: bool = False) -> None:
    """Bound the waits of all connections that `engine` will make. With `long_statements` neither the server's work on
    one is bounded, nor the client's between two of them."""
    kind = psycopg.Connection[Any] if long_statements else BoundedConnection

    def connect(_dialect: Any, _record: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return kind.connect(*arguments, **{"connect_timeout": CONNECT_SECONDS, **options})

    event.listen(engine, "do_connect", connect)

    def set_timeouts(connection: psycopg.Connection[Any], _record: Any) -> None:
        # Statements, not options of the connection: those are refused by poolers such as PgBouncer.
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            if not long_statements:
                cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        connection.commit()

    event.listen(engine, "connect", set_timeouts)
