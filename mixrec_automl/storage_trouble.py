"""A disk that is full or gone: every trial meets it, and none of them is to blame."""

from __future__ import annotations

import time
from collections.abc import Callable

STORAGE_PATIENCE = 60.0
"""Seconds of nothing but storage errors after which a search ends, to be resumed once they are mended."""
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
        self._wait, self._next_try = FIRST_WAIT, 0.0
        self._error = ""

    @property
    def must_wait(self) -> bool:
        """Whether it is too early to start a trial again."""
        return self._since is not None and self._clock() < self._next_try

    @property
    def reason_to_give_up(self) -> str | None:
        """Once patience has ended."""
        if self._since is None or self._clock() - self._since <= STORAGE_PATIENCE:
            return None
        return f"checkpoints cannot be written, so free or mend the disk before you resume: {self._error}"

    def failed(self, error: str) -> None:
        """A trial ended because of it; `error` in one line."""
        self._since = self._since if self._since is not None else self._clock()
        self._next_try = self._clock() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._error = error
        self._notice(f"checkpoints cannot be written, trials wait ({error})")

    def worked(self) -> None:
        """A trial has written a checkpoint."""
        if self._since is not None:
            self._since, self._wait = None, FIRST_WAIT
            self._notice(None)
