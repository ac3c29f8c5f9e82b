"""Tells a trial that hangs from one that is slow: by how long it has reported nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_SECONDS = 6 * 3600.0
"""Before any epoch has ended nobody knows how long one takes; nor how long a worker takes to come up."""
LEAST_SECONDS = 600.0
TIMES_LONGEST = 10
CANCEL_SECONDS = 60.0
"""Within this a killed attempt has to be reported as lost; else whoever should report it hangs too."""


@dataclass
class _Watched:
    attempt: int
    heard: float
    has_begun: bool = False
    is_cancelled: bool = False


class Watchdog:
    """Watches the attempts that run.

    Args:
        seconds: without a report after which an attempt hangs; None: derived from the epochs seen, as the
            documentation of `search.hang_seconds` says.
        clock: monotonic seconds.
        first: seconds that are allowed to what has no measure yet.
    """

    def __init__(
        self, seconds: float | None, clock: Callable[[], float] = time.monotonic, *, first: float = FIRST_SECONDS
    ) -> None:
        self._seconds, self._clock, self._first = seconds, clock, first
        self._longest: float | None = None
        self._watched: dict[int, _Watched] = {}

    @property
    def limit(self) -> float:
        """Seconds without a report that are still allowed to an attempt that a worker has begun."""
        if self._seconds is not None:
            return self._seconds
        return self._first if self._longest is None else max(LEAST_SECONDS, TIMES_LONGEST * self._longest)

    def submitted(self, number: int, attempt: int) -> None:
        """From now on it waits for a worker."""
        self._watched[number] = _Watched(attempt, self._clock())

    def began(self, number: int) -> None:
        """A worker has taken it."""
        self._watched[number].has_begun, self._watched[number].heard = True, self._clock()

    def has_begun(self, number: int) -> bool:
        return self._watched[number].has_begun

    def epoch_ended(self, number: int, seconds: float) -> None:
        """It took `seconds` on its worker's clock: here, reports that had to wait would look like long epochs."""
        self._longest = max(self._longest or 0.0, seconds)
        self._watched[number].heard = self._clock()

    def ended(self, number: int) -> None:
        self._watched.pop(number, None)

    def hanging(self) -> list[tuple[int, int]]:
        """(number, attempt) of what is to be killed now; each is told once."""
        now, found = self._clock(), []
        for number, watched in self._watched.items():
            limit = self.limit if watched.has_begun else self._first
            if not watched.is_cancelled and now - watched.heard > limit:
                watched.is_cancelled, watched.heard = True, now
                found.append((number, watched.attempt))
        return found

    @property
    def is_ignored(self) -> bool:
        """Whether an attempt that was to be killed has not been reported as lost in time."""
        now = self._clock()
        return any(one.is_cancelled and now - one.heard > CANCEL_SECONDS for one in self._watched.values())
