"""Goes on asking a database that does not answer: trials keep running meanwhile, and their reports wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mixrec_automl.interruption import StopRequest
from mixrec_automl.store.errors import DatabaseUnavailableError

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0
"""Seconds between two tries; each wait is twice the one before."""
PATIENCE_WHEN_STOPPING = 5.0
"""Whoever stops a search waits no longer than this for an answer."""


class Patience:
    """Calls into the database until they succeed.

    Args:
        stop: once set, as after `hurry`, patience ends after `PATIENCE_WHEN_STOPPING` seconds.
        notice: told what is the matter, and None once it is over.
    """

    def __init__(self, stop: StopRequest, notice: Callable[[str | None], None]) -> None:
        self._stop, self._notice = stop, notice
        self._is_hurried = False

    def hurry(self) -> None:
        """From now on wait no longer than where the search is to stop."""
        self._is_hurried = True

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call`, which must change nothing where it is repeated.

        Raises:
            DatabaseUnavailableError: no answer, and the search is to stop.
            Exception: whatever else `call` raises, at once.
        """
        wait, told = FIRST_WAIT, False
        stopping_since: float | None = None
        while True:
            try:
                result = call()
            except DatabaseUnavailableError as error:
                if self._stop.is_set() or self._is_hurried:
                    stopping_since = stopping_since or time.monotonic()
                    if time.monotonic() - stopping_since > PATIENCE_WHEN_STOPPING:
                        raise
                    time.sleep(FIRST_WAIT)
                    continue
                self._notice(f"the database does not answer, trials go on ({error})")
                told = True
                self._stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                if told:
                    self._notice(None)
                return result
