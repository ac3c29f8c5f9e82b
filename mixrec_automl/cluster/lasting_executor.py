"""An executor that outlasts its own parts: it ends trials that hang, and is replaced where its processes die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    Executor,
    ExecutorDied,
    MachinesChanged,
    SlotsWaiting,
    TrialBegan,
    TrialEnded,
    TrialLost,
)
from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.cluster.watchdog import Watchdog

MOST_DEATHS = 3
"""Executors that may die in a row without a single event."""


class LastingExecutor:
    """An `Executor` around those that `make` makes, one at a time.

    Where one dies, its trials are reported lost and another one takes its place; ExecutorDied comes out only after
    `MOST_DEATHS` in a row.
    """

    def __init__(self, make: Callable[[], Executor], watchdog: Watchdog) -> None:
        self._make, self._watchdog = make, watchdog
        self._made: Executor | None = None
        self._running: dict[int, int] = {}
        """Attempt of each trial that has been submitted and has not ended"""
        self._lost: deque[TrialLost | SlotsWaiting] = deque()
        self._is_waiting = False
        """Whether it was last told that some slots cannot work"""
        self._deaths = 0
        self._slots: int | None = None
        self._is_stopping = False

    def submit(self, trial: TrialTask) -> None:
        self._running[trial.number] = trial.attempt
        self._watchdog.submitted(trial.number, trial.attempt)
        with self._replacing():
            self._executor.submit(trial)

    def next_event(self, timeout: float) -> Event | None:
        event: Event | None = None
        if self._lost:
            event = self._lost.popleft()
        else:
            with self._replacing():
                event = self._executor.next_event(timeout)
                self._deaths = 0 if event is not None else self._deaths
        if isinstance(event, SlotsWaiting):
            self._is_waiting = event.why is not None
        elif event is None:  # nothing waits to be read, so whoever has not reported hangs
            self._end_hanging()
        elif not isinstance(event, MachinesChanged) and self._running.get(event.number) == event.attempt:
            if isinstance(event, TrialLost):
                event = replace(event, has_begun=self._watchdog.has_begun(event.number))
            self._watch(event)
        return event

    def use(self, slots: int) -> None:
        self._slots = slots
        with self._replacing():
            self._executor.use(slots)

    def end_early(self, number: int, attempt: int) -> None:
        with self._replacing():
            self._executor.end_early(number, attempt)

    def cancel(self, number: int, attempt: int) -> None:
        with self._replacing():
            self._executor.cancel(number, attempt)

    def stop(self) -> None:
        self._is_stopping = True
        with self._replacing():
            self._executor.stop()

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    @property
    def _executor(self) -> Executor:
        """Made where it is first asked for something, so that what dies while it is made is replaced as well."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def _watch(self, event: TrialBegan | EpochEnded | TrialEnded) -> None:
        if isinstance(event, TrialBegan):
            self._watchdog.began(event.number)
        elif isinstance(event, EpochEnded):
            self._watchdog.epoch_ended(event.number, event.seconds)
        else:
            del self._running[event.number]
            self._watchdog.ended(event.number)

    def _end_hanging(self) -> None:
        for number, attempt in self._watchdog.hanging():
            self.cancel(number, attempt)
        if self._watchdog.is_ignored:
            with self._replacing():
                raise ExecutorDied("a trial that hangs could not be ended")

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        try:
            yield
        except ExecutorDied as died:
            self._deaths += 1
            self.close()
            if self._deaths > MOST_DEATHS:
                raise
            self._lost = deque(TrialLost(number, attempt, str(died)) for number, attempt in self._running.items())
            if self._is_waiting:
                self._lost.appendleft(SlotsWaiting(None))  # its successor tells of its own troubles
            with self._replacing():  # its successor may die as soon as it is asked for something
                successor = self._executor
                if self._slots is not None:
                    successor.use(self._slots)
                if self._is_stopping:
                    successor.stop()
