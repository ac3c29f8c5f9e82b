"""The threads that keep slots up, with worker groups that end as the test says; Ray itself is not started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mixrec_automl.cluster import growth, slot_runner
from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    MachinesChanged,
    SlotsWaiting,
    TrialBegan,
    TrialCompleted,
    TrialLost,
    TrialStopped,
)
from mixrec_automl.cluster.mailbox import WorkerProcess
from mixrec_automl.cluster.slot_runner import SlotRunner
from mixrec_automl.fair_share import Machine
from mixrec_automl.search_config import ClusterConfig
from tests.mixrec_automl.cluster.trainings import Counting, task

WORKER = WorkerProcess("node", 1)
HERE = Path("unused")


class World:
    """What Ray keeps reserved, and what the group of each slot does instead of training."""

    def __init__(self) -> None:
        self.reserved: set[str] = set()
        self.killed: list[WorkerProcess] = []
        self.fits: dict[int, Callable[[SlotRunner, str], None]] = {}
        self.runner: SlotRunner | None = None
        self.break_reservations = False

    def all_of_this_job(self) -> set[str]:
        if self.break_reservations:
            raise RuntimeError("Ray does not answer")
        return set(self.reserved)

    def give_back(self, reservations: set[str]) -> None:
        self.reserved -= set(reservations)

    def trainer(self, runner: SlotRunner, group: str) -> Any:
        place = int(group.split("-")[1])
        run = SimpleNamespace(run_id=f"run of {group}")
        return SimpleNamespace(fit=lambda: self.fits[place](runner, group), train_run_context=run)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    context = SimpleNamespace(current_actor=None)
    monkeypatch.setattr(slot_runner.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(slot_runner, "all_of_this_job", world.all_of_this_job)
    monkeypatch.setattr(slot_runner, "give_back", world.give_back)
    monkeypatch.setattr(slot_runner, "_kill", world.killed.append)
    monkeypatch.setattr(slot_runner, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(slot_runner, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(slot_runner, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(SlotRunner, "_trainer", lambda runner, group: world.trainer(runner, group))
    yield world
    for thread in threading.enumerate():  # or they would go on without what stands for Ray here
        if thread.name == "watch" or thread.name.startswith("slot-"):
            thread.join(5)
            assert not thread.is_alive()


def does_not_come_up(_: SlotRunner, group: str) -> None:
    raise ImportError(f"no such module for {group[:6]}")


def trains(runner: SlotRunner, group: str) -> None:
    """A worker that takes one trial after another."""
    assert runner.join(group, WORKER, f"reservation of {group}")
    position = 0
    while (trial := runner.next_trial(group, 0, position)) is not None:
        position += 1
        assert runner.begin(group)
        runner.post(group, TrialCompleted(trial.number, trial.attempt, 0.1, 0.01))


def events_until(runner: SlotRunner, is_last: Callable[[Event], bool]) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        event, trouble = runner.next_event(0.05)
        assert trouble is None
        if event is not None:
            events.append(event)
            if is_last(event):
                return events
    raise AssertionError(f"only {events} came")


def test_a_slot_that_does_not_come_up_is_told_and_leaves_the_other_alone(world: World) -> None:
    world.fits = {0: does_not_come_up, 1: trains}
    runner = SlotRunner(Counting(), ClusterConfig(slots=2), HERE)
    (told,) = events_until(runner, lambda event: isinstance(event, SlotsWaiting))
    assert told == SlotsWaiting("1 of 2 slots wait: no such module for slot-0")
    time.sleep(0.2)  # many more starts that fail
    for number in range(3):
        runner.submit(task(number, HERE))
        events = events_until(runner, lambda event: isinstance(event, TrialCompleted))
        assert events == [TrialBegan(number, 1), TrialCompleted(number, 1, 0.1, 0.01)]
    world.fits[0] = trains
    assert events_until(runner, lambda event: isinstance(event, SlotsWaiting)) == [SlotsWaiting(None)]
    runner.stop()


def test_where_no_slot_comes_up_that_is_the_end(world: World) -> None:
    world.fits = {0: does_not_come_up, 1: does_not_come_up}
    runner = SlotRunner(Counting(), ClusterConfig(slots=2), HERE)
    deadline = time.monotonic() + 10
    while (trouble := runner.next_event(0.01)[1]) is None:
        assert time.monotonic() < deadline
    assert trouble == "no worker comes up: no such module for slot-0"
    runner.stop()


def test_what_goes_wrong_around_a_group_neither_ends_its_slot_nor_keeps_its_trial(world: World) -> None:
    def dies(runner: SlotRunner, group: str) -> None:
        runner.join(group, WORKER, "r")
        runner.next_trial(group, 0, 0)
        runner.begin(group)
        world.break_reservations, world.fits[0] = True, trains
        raise RuntimeError("its worker died")

    world.fits = {0: dies}
    runner = SlotRunner(Counting(), ClusterConfig(), HERE)
    runner.submit(task(0, HERE))
    events = events_until(runner, lambda event: isinstance(event, TrialLost))
    assert events[-1] == TrialLost(0, 1, "its worker died")
    runner.submit(task(0, HERE, attempt=2))
    assert events_until(runner, lambda event: isinstance(event, TrialCompleted))
    runner.stop()


def test_what_dead_groups_had_reserved_is_given_back(world: World) -> None:
    """Of one that came up its own; of one that never did what is nobody's, before another start."""
    is_over = threading.Event()
    seen: list[set[str]] = []

    def dies(runner: SlotRunner, group: str) -> None:
        world.reserved.add("first")
        runner.join(group, WORKER, "first")
        world.fits[0] = never_comes_up
        raise RuntimeError("its worker died")

    def never_comes_up(_: SlotRunner, group: str) -> None:  # noqa: ARG001
        seen.append(set(world.reserved))
        world.reserved.add("second")
        world.fits[0] = comes_up
        raise RuntimeError("no answer")

    def comes_up(runner: SlotRunner, group: str) -> None:
        seen.append(set(world.reserved))
        is_over.set()
        trains(runner, group)

    world.fits = {0: dies}
    runner = SlotRunner(Counting(), ClusterConfig(), HERE)
    assert is_over.wait(10)
    assert seen == [set(), set()]
    runner.stop()


def test_a_worker_that_stands_still_with_a_trial_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_runner, "BEGIN_SECONDS", 0.05)
    killed = threading.Event()

    def stands_still(runner: SlotRunner, group: str) -> None:
        runner.join(group, WORKER, "r")
        runner.next_trial(group, 0, 0)  # and never begins it
        world.fits[0] = trains
        assert killed.wait(10)
        raise RuntimeError("killed")

    world.fits = {0: stands_still}
    runner = SlotRunner(Counting(), ClusterConfig(), HERE)
    runner.submit(task(0, HERE))
    deadline = time.monotonic() + 10
    while not world.killed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.set()
    events = events_until(runner, lambda event: isinstance(event, TrialCompleted))
    assert events == [TrialBegan(0, 1), TrialCompleted(0, 1, 0.1, 0.01)], "nobody lost it"
    runner.stop()


def test_slots_of_a_shared_cluster_come_up_when_they_are_told_to_and_give_back_what_they_had(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [Machine(2, 0)]
    monkeypatch.setattr(slot_runner, "machines", lambda: tuple(machines))
    is_up = [threading.Event(), threading.Event()]

    def trains_in(place: int) -> Callable[[SlotRunner, str], None]:
        def fit(runner: SlotRunner, group: str) -> None:
            world.reserved.add(f"reservation of {group}")
            is_up[place].set()
            trains(runner, group)

        return fit

    world.fits = {place: trains_in(place) for place in (0, 1)}
    runner = SlotRunner(Counting(), ClusterConfig(slots=2), HERE, is_shared=True)
    assert events_until(runner, lambda event: isinstance(event, MachinesChanged)) == [MachinesChanged((Machine(2, 0),))]
    assert not any(place.is_set() for place in is_up), "none before it is told to"
    runner.use(2)
    assert all(place.wait(10) for place in is_up)
    runner.use(1)
    until(lambda: len(world.reserved) == 1)
    runner.submit(task(0, HERE))
    assert events_until(runner, lambda event: isinstance(event, TrialCompleted))
    runner.use(0)
    until(lambda: not world.reserved)
    machines.append(Machine(1, 0))
    told = events_until(runner, lambda event: isinstance(event, MachinesChanged))
    assert told == [MachinesChanged((Machine(2, 0), Machine(1, 0)))]
    for place in is_up:
        place.clear()
    runner.use(1)
    until(lambda: any(place.is_set() for place in is_up))
    runner.stop()


def test_a_slot_that_waits_and_is_given_up_is_missed_by_nobody(world: World) -> None:
    world.fits = {0: does_not_come_up, 1: trains}
    runner = SlotRunner(Counting(), ClusterConfig(slots=2), HERE)
    assert events_until(runner, lambda event: isinstance(event, SlotsWaiting))
    until(lambda: any(slot.reservation for slot in runner._slots))
    runner.use(1)
    assert events_until(runner, lambda event: isinstance(event, SlotsWaiting)) == [SlotsWaiting(None)]
    runner.stop()


def test_a_group_with_too_few_workers_makes_way_for_a_larger_one_after_its_epoch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(growth, "room", lambda *_: 2)
    monkeypatch.setattr(growth, "spare", lambda *_: 1)

    def trains_epochs(runner: SlotRunner, group: str) -> None:
        assert runner.join(group, WORKER, f"reservation of {group}")
        world.fits[0] = trains
        trial = runner.next_trial(group, 0, 0)
        assert trial is not None
        assert runner.begin(group)
        epochs = 1
        while runner.post(group, EpochEnded(trial.number, trial.attempt, epochs, {})):
            time.sleep(0.02)
            epochs += 1
        assert epochs > 1, "room has to last"
        runner.post(group, TrialStopped(trial.number, trial.attempt))
        assert runner.next_trial(group, 0, 1) is None

    world.fits = {0: trains_epochs}
    runner = SlotRunner(Counting(), ClusterConfig(slots=1, workers_per_trial=2), HERE, fewest_workers=1)
    runner.submit(task(0, HERE))
    assert events_until(runner, lambda event: isinstance(event, TrialStopped))
    runner.submit(replace(task(0, HERE), attempt=2))
    events = events_until(runner, lambda event: isinstance(event, TrialCompleted))
    assert events == [TrialBegan(0, 2), TrialCompleted(0, 2, 0.1, 0.01)]
    runner.stop()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
