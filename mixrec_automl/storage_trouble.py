"""A disk that is full or gone: every trial meets it, and none of them is to blame."""

from __future__ import annotations

import time
from collections.abc import Callable

STORAGE_PATIENCE = 60.0
"""Seconds from the first to the last of storage errors without a checkpoint between, after which a search ends, to be
resumed once they are mended. While a trial tries again nobody knows, however long it takes."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds before a trial is started again."""


class StorageTrouble:
    """Holds trials back while checkpoints cannot be written, for longer after each try.

    Args:
        notice: told what is the matter, and None once it is over.
        clock: monotonic seconds.
    """

    def __init__(self, notice: Callable[[str | None], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._notice, self._clock = notice, clock
        self._since: float | None = None
        self._last = self._next_try = 0.0
        self._wait = FIRST_WAIT
        self._error = ""
        self._suspected: set[int] = set()
        """Trials that met it and have written nothing since, though another one has"""
        self._met: set[int] = set()
        """Trials that met it and have written nothing since"""

    @property
    def must_wait(self) -> bool:
        """Whether it is too early to start a trial again."""
        return self._since is not None and self._clock() < self._next_try

    @property
    def reason_to_give_up(self) -> str | None:
        """Once patience has ended."""
        if self._since is None or self._last - self._since <= STORAGE_PATIENCE:
            return None
        return f"checkpoints cannot be written, so free or mend the disk before you go on: {self._error}"

    def failed(self, number: int, error: str) -> bool:
        """Trial `number` ended because of it; `error` in one line.

        Returns:
            Whether it is blameless: false where others could write after it had failed before, for then it is its own
            files that are damaged.
        """
        is_blameless = number not in self._suspected
        self._suspected.discard(number)
        self._met.add(number)
        self._last = self._clock()
        self._since = self._since if self._since is not None else self._last
        self._next_try = self._last + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._error = error
        self._notice(f"checkpoints cannot be written, trials wait ({error})")
        return is_blameless

    def worked(self, number: int) -> None:
        """Trial `number` has written a checkpoint."""
        self._met.discard(number)
        self._suspected.discard(number)
        self._suspected |= self._met
        if self._since is not None:
            self._since, self._wait = None, FIRST_WAIT
            self._notice(None)
