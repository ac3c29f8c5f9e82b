"""What hangs and what dies: told by a clock of the test, on executors that do what the test says."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    ExecutorDied,
    MachinesChanged,
    SlotsWaiting,
    TrialBegan,
    TrialCompleted,
    TrialLost,
)
from mixrec_automl.cluster.lasting_executor import MOST_DEATHS, LastingExecutor
from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.cluster.watchdog import CANCEL_SECONDS, FIRST_SECONDS, LEAST_SECONDS, Watchdog
from mixrec_automl.fair_share import Machine
from tests.mixrec_automl.cluster.trainings import task


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """An executor whose events are put there by the test; a None among them is its death."""

    def __init__(self) -> None:
        self.events: deque[Event | None] = deque()
        self.submitted: list[tuple[int, int]] = []
        self.cancelled: list[tuple[int, int]] = []
        self.told_to_end: list[tuple[int, int]] = []
        self.slots: int | None = None
        self.is_stopped = self.is_closed = False
        self.is_alive = True

    def submit(self, trial: TrialTask) -> None:
        self.submitted.append((trial.number, trial.attempt))

    def next_event(self, timeout: float) -> Event | None:  # noqa: ARG002
        if not self.events:
            return None
        event = self.events.popleft()
        if event is None:
            raise ExecutorDied("gone")
        return event

    def use(self, slots: int) -> None:
        self.slots = slots

    def end_early(self, number: int, attempt: int) -> None:
        if not self.is_alive:
            raise ExecutorDied("gone")
        self.told_to_end.append((number, attempt))

    def cancel(self, number: int, attempt: int) -> None:
        self.cancelled.append((number, attempt))

    def stop(self) -> None:
        self.is_stopped = True

    def close(self) -> None:
        self.is_closed = True


class World:
    def __init__(self, seconds: float | None) -> None:
        self.clock, self.made = Clock(), list[Scripted]()
        self.lasting = LastingExecutor(self._make, Watchdog(seconds, self.clock))
        assert self.lasting.next_event(0) is None

    def _make(self) -> Scripted:
        self.made.append(Scripted())
        return self.made[-1]

    def begin(self, trial: TrialTask) -> None:
        """Submit `trial`, which a worker takes at once."""
        self.lasting.submit(trial)
        self.made[-1].events.append(TrialBegan(trial.number, trial.attempt))
        assert self.lasting.next_event(0) == TrialBegan(trial.number, trial.attempt)

    def after(self, seconds: float) -> Event | None:
        self.clock.now += seconds
        return self.lasting.next_event(0)


def epoch(number: int, attempt: int = 1, seconds: float = 0.0) -> EpochEnded:
    return EpochEnded(number, attempt, 1, {}, seconds)


def test_what_reports_nothing_for_too_long_is_cancelled_once(tmp_path: Path) -> None:
    world = World(10.0)
    (inner,) = world.made
    world.begin(task(0, tmp_path))
    world.begin(task(1, tmp_path))
    world.after(6)
    inner.events.append(epoch(1))
    assert world.after(3) == epoch(1)
    assert inner.cancelled == []
    world.after(2)
    world.after(1)
    assert inner.cancelled == [(0, 1)]
    inner.events.append(TrialLost(0, 1, "cancelled"))
    assert isinstance(world.after(0), TrialLost)
    world.after(11)
    assert inner.cancelled == [(0, 1), (1, 1)]
    inner.events.append(TrialCompleted(1, 1, 0.1, 0.1))
    world.after(0)
    world.after(1000)
    assert len(world.made) == 1, "nothing runs, so nothing hangs"


def test_events_that_wait_to_be_read_are_no_silence(tmp_path: Path) -> None:
    """After an outage of the database hours of reports may wait."""
    world = World(10.0)
    world.begin(task(0, tmp_path))
    world.begin(task(1, tmp_path))
    world.made[0].events.extend([epoch(0), epoch(1)])
    assert world.after(5000) == epoch(0)
    assert world.made[0].cancelled == []
    assert world.after(0) == epoch(1)
    world.after(9)
    assert world.made[0].cancelled == []


def test_an_outage_does_not_make_epochs_long(tmp_path: Path) -> None:
    """Reports that wait for hours to be read tell how long their epochs took on the worker's clock."""
    world = World(None)
    world.begin(task(0, tmp_path))
    world.made[0].events.append(epoch(0, seconds=1.0))
    world.after(7200)
    world.after(LEAST_SECONDS + 1)
    assert world.made[0].cancelled == [(0, 1)]


def test_the_limit_follows_the_longest_epoch(tmp_path: Path) -> None:
    world = World(None)
    (inner,) = world.made
    world.begin(task(0, tmp_path))
    world.after(FIRST_SECONDS - 1)
    assert inner.cancelled == [], "nobody knows yet how long an epoch takes"
    inner.events.append(epoch(0, seconds=FIRST_SECONDS - 1))
    world.after(0)
    long = 10 * (FIRST_SECONDS - 1)
    world.after(long - 1)
    assert inner.cancelled == []
    world.after(2)
    assert inner.cancelled == [(0, 1)]
    short = Watchdog(None, world.clock)
    short.submitted(0, 1)
    short.began(0)
    world.clock.now += 1
    short.epoch_ended(0, 1.0)
    assert short.limit == LEAST_SECONDS


def test_an_executor_that_does_not_end_what_hangs_is_replaced(tmp_path: Path) -> None:
    world = World(10.0)
    world.begin(task(0, tmp_path))
    world.after(11)
    assert world.made[0].cancelled == [(0, 1)]
    world.after(CANCEL_SECONDS + 1)
    assert len(world.made) == 2
    assert world.made[0].is_closed
    assert world.after(0) == TrialLost(0, 1, "a trial that hangs could not be ended")
    world.lasting.submit(task(0, tmp_path, attempt=2))
    assert world.made[1].submitted == [(0, 2)]


def test_a_trial_that_waits_for_a_worker_does_not_hang(tmp_path: Path) -> None:
    """Workers may take minutes to come up, or wait for a machine."""
    world = World(10.0)
    world.lasting.submit(task(0, tmp_path))
    world.after(FIRST_SECONDS - 1)
    world.made[0].events.append(TrialBegan(0, 1))
    world.after(0)
    world.after(9)
    assert world.made[0].cancelled == []
    world.after(2)
    assert world.made[0].cancelled == [(0, 1)]


def test_the_trials_of_a_dead_executor_are_lost_and_its_successor_is_told_to_stop(tmp_path: Path) -> None:
    world = World(10.0)
    world.lasting.submit(task(0, tmp_path))
    world.lasting.submit(task(1, tmp_path))
    world.made[0].events.append(TrialCompleted(0, 1, 0.1, 0.1))
    world.after(0)
    world.lasting.stop()
    world.made[0].events.append(None)
    world.after(0)
    assert (len(world.made), world.made[1].is_stopped) == (2, True)
    assert world.after(0) == TrialLost(1, 1, "gone", has_begun=False)
    assert world.after(100) is None
    world.lasting.close()
    assert world.made[1].is_closed


def test_a_successor_keeps_as_many_slots_up(tmp_path: Path) -> None:
    world = World(10.0)
    world.lasting.use(2)
    assert world.made[0].slots == 2
    world.made[0].events.append(None)
    world.lasting.submit(task(0, tmp_path))
    world.after(0)
    assert world.made[1].slots == 2
    told = MachinesChanged((Machine(2, 0),))
    world.made[1].events.append(told)
    assert world.after(0) == TrialLost(0, 1, "gone", has_begun=False)
    assert world.after(0) == told


def test_what_a_dead_executor_waited_for_is_over(tmp_path: Path) -> None:
    world = World(10.0)
    world.lasting.submit(task(0, tmp_path))
    world.made[0].events.extend([SlotsWaiting("1 of 2 slots wait"), None])
    assert world.after(0) == SlotsWaiting("1 of 2 slots wait")
    world.after(0)
    assert world.after(0) == SlotsWaiting(None)
    assert world.after(0) == TrialLost(0, 1, "gone", has_begun=False)
    world.lasting.submit(task(0, tmp_path, attempt=2))
    world.made[1].events.append(None)
    world.after(0)
    assert world.after(0) == TrialLost(0, 2, "gone", has_begun=False), "told once"


def test_a_trial_is_told_to_end_and_lost_where_nobody_hears_it(tmp_path: Path) -> None:
    world = World(10.0)
    (inner,) = world.made
    world.begin(task(0, tmp_path))
    world.lasting.end_early(0, 1)
    assert inner.told_to_end == [(0, 1)]
    inner.is_alive = False
    world.lasting.end_early(0, 1)
    assert world.after(0) == TrialLost(0, 1, "gone")


def test_deaths_in_a_row_are_counted_and_an_event_starts_anew(tmp_path: Path) -> None:
    world = World(10.0)
    for _ in range(2 * MOST_DEATHS):
        world.lasting.submit(task(0, tmp_path))
        world.made[-1].events.extend([epoch(0), None])
        world.after(0)
        world.after(0)
        world.after(0)
    for _ in range(MOST_DEATHS - 1):
        world.made[-1].events.append(None)
        world.after(0)
        world.after(0)
    world.made[-1].events.append(None)
    with pytest.raises(ExecutorDied):
        world.after(0)
