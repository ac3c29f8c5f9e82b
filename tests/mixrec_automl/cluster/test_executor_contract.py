"""What every executor keeps to, on the real ones: threads, a process for each trial, and warm slots."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    Executor,
    ExecutorDied,
    TrialBegan,
    TrialCompleted,
    TrialEnded,
    TrialFailed,
    TrialLost,
    TrialStopped,
)
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.ray_session import ray_session
from mixrec_automl.cluster.slot_executor import SlotExecutor
from mixrec_automl.cluster.training import Training
from mixrec_automl.search_config import ClusterConfig
from tests.mixrec_automl.cluster.trainings import Counting, Ordered, order, task, true_mrr

SLOTS = min(2, os.cpu_count() or 1)
SECONDS = 200.0

Make = Callable[[Training], Executor]


def make_in_process(training: Training, folder: Path) -> Executor:  # noqa: ARG001
    return InProcessExecutor(training)


def make_one_process_per_trial(training: Training, folder: Path) -> Executor:
    return SlotExecutor(training, ClusterConfig(slots=SLOTS, trials_per_process=1), folder)


def make_warm_slots(training: Training, folder: Path) -> Executor:
    return SlotExecutor(training, ClusterConfig(slots=SLOTS, trials_per_process=3), folder)


THREADS = pytest.param(make_in_process, id="threads")
ONE_EACH = pytest.param(make_one_process_per_trial, id="process per trial", marks=pytest.mark.end_to_end)
WARM = pytest.param(make_warm_slots, id="warm slots", marks=pytest.mark.end_to_end)
WARM_KILLED = pytest.param(make_warm_slots, id="warm slots", marks=[pytest.mark.end_to_end, pytest.mark.fault])
"""Where processes are killed or frozen. A process for each trial is the same executor, and would only take longer."""


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session():
            yield


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param is not make_in_process:
        request.getfixturevalue("session")
    return lambda training: request.param(training, tmp_path / "ray")


def take(executor: Executor, trials: int, on_event: Callable[[Event], None] = lambda _: None) -> list[Event]:
    """All events until `trials` trials have ended."""
    events: list[Event] = []
    deadline = time.monotonic() + SECONDS
    while sum(isinstance(event, TrialEnded) for event in events) < trials:
        assert time.monotonic() < deadline, f"nothing more came after {events}"
        event = executor.next_event(0.2)
        if event is not None:
            events.append(event)
            on_event(event)
    return events


def of(events: list[Event], number: int) -> list[Event]:
    return [event for event in events if event.number == number]


@pytest.mark.parametrize("make", [THREADS, ONE_EACH, WARM], indirect=True)
def test_trials_side_by_side_and_one_after_another(make: Make, tmp_path: Path) -> None:
    """Events in order, one end for each attempt; a design that raises harms no other."""
    bits = ["000-000", "100-000", "010-000", "001-000", "000-100"]
    tasks = [task(number, tmp_path, bits=design) for number, design in enumerate(bits)]
    order(tasks[1], "raise")
    order(tasks[2], "raise full disk")
    with closing(make(Ordered())) as executor:
        waiting = iter(tasks)
        for _ in range(SLOTS):
            executor.submit(next(waiting))

        def submit_next(event: Event) -> None:
            following = next(waiting, None) if isinstance(event, TrialEnded) else None
            if following is not None:
                executor.submit(following)

        events = take(executor, len(tasks), submit_next)
        assert executor.next_event(0.3) is None
    for trial in (tasks[0], tasks[3], tasks[4]):
        began, first, second, ended = of(events, trial.number)
        assert began == TrialBegan(trial.number, 1)
        mrr = true_mrr(trial.architecture)
        assert first == EpochEnded(trial.number, 1, 1, {"validation_mrr": mrr / 2})
        assert second == EpochEnded(trial.number, 1, 2, {"validation_mrr": mrr})
        assert ended == TrialCompleted(trial.number, 1, mrr, 0.001)
    raised = of(events, 1)[-1]
    assert isinstance(raised, TrialFailed)
    assert raised.error.rstrip().endswith("ArithmeticError: this design cannot be trained")
    assert "trainings.py" in raised.error, "the traceback is that of the training"
    full = of(events, 2)[-1]
    assert isinstance(full, TrialLost)
    assert full.is_storage
    assert "No space left on device" in full.reason


@pytest.mark.parametrize("make", [THREADS, WARM], indirect=True)
def test_a_stop_ends_what_runs_and_what_waits_and_the_next_attempt_goes_on(make: Make, tmp_path: Path) -> None:
    with closing(make(Counting(epochs=40, seconds=0.1))) as executor:
        for number in range(SLOTS):
            executor.submit(task(number, tmp_path))

        def stop_once(event: Event) -> None:
            if isinstance(event, EpochEnded) and event.epoch == 2:
                executor.stop()

        events = take(executor, SLOTS, stop_once)
        executor.submit(task(9, tmp_path))
        assert take(executor, 1) == [TrialStopped(9, 1)], "after a stop nothing begins"
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert sorted(ended, key=lambda event: event.number) == [TrialStopped(number, 1) for number in range(SLOTS)]
    reached = max(event.epoch for event in of(events, 0) if isinstance(event, EpochEnded))
    assert reached < 40
    executor.close()  # a second time, as a caller in trouble may

    with closing(make(Counting(epochs=reached + 2))) as executor:
        executor.submit(task(0, tmp_path, attempt=2))
        epochs = [event.epoch for event in take(executor, 1) if isinstance(event, EpochEnded)]
    assert epochs == [reached + 1, reached + 2]


@pytest.mark.parametrize("make", [THREADS, WARM], indirect=True)
def test_one_attempt_can_be_told_to_end_after_its_epoch(make: Make, tmp_path: Path) -> None:
    """The others go on, and so does its slot; its checkpoint is that of its last epoch."""
    with closing(make(Counting(epochs=12, seconds=0.2))) as executor:
        for number in range(SLOTS):
            executor.submit(task(number, tmp_path))

        def tell(event: Event) -> None:
            if isinstance(event, EpochEnded) and (event.number, event.epoch) == (0, 2):
                executor.end_early(0, 7)  # an attempt that does not run is ignored
                executor.end_early(0, 1)
            elif isinstance(event, TrialStopped):
                executor.submit(task(SLOTS, tmp_path))

        events = take(executor, SLOTS + 1, tell)
        executor.end_early(0, 1)
    epochs = [event.epoch for event in of(events, 0) if isinstance(event, EpochEnded)]
    assert of(events, 0)[-1] == TrialStopped(0, 1)
    assert 3 <= len(epochs) < 12
    assert (tmp_path / "0" / "epoch.txt").read_text() == str(epochs[-1])
    for number in range(1, SLOTS + 1):
        assert isinstance(of(events, number)[-1], TrialCompleted)


@pytest.mark.parametrize("make", [THREADS, WARM_KILLED], indirect=True)
def test_an_attempt_that_is_given_up_is_lost_and_no_later_one(make: Make, tmp_path: Path) -> None:
    with closing(make(Counting(epochs=600, seconds=0.2))) as executor:
        executor.submit(task(0, tmp_path))

        def give_up(event: Event) -> None:
            if isinstance(event, EpochEnded) and event.epoch == 1:
                executor.cancel(0, 7)  # an attempt that does not run is ignored
                executor.cancel(0, 1)

        *_, ended = take(executor, 1, give_up)
        assert isinstance(ended, TrialLost)
        assert (ended.number, ended.attempt, ended.is_storage) == (0, 1, False)
        executor.cancel(0, 1)
        executor.submit(task(1, tmp_path))
        first = take_first(executor)
        assert first == EpochEnded(1, 1, 1, first.metrics)


def take_first(executor: Executor) -> EpochEnded:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        event = executor.next_event(0.2)
        if isinstance(event, EpochEnded):
            return event
        assert event is None or isinstance(event, TrialBegan), event
    raise AssertionError("nothing came")


@pytest.mark.parametrize("make", [WARM_KILLED], indirect=True)
def test_the_trial_of_a_worker_that_dies_is_lost_and_can_be_tried_again(make: Make, tmp_path: Path) -> None:
    with closing(make(Ordered())) as executor:
        executor.submit(order(task(0, tmp_path), "be killed"))
        *_, ended = take(executor, 1)
        assert isinstance(ended, TrialLost)
        assert not ended.is_storage
        assert "died" in ended.reason
        executor.submit(task(0, tmp_path, attempt=2))
        assert take(executor, 1)[-1] == TrialCompleted(0, 2, 0.1, 0.001)


@pytest.mark.parametrize("make", [WARM_KILLED], indirect=True)
def test_whatever_hangs_can_be_ended(make: Make, tmp_path: Path) -> None:
    """Neither a process that lets no other thread run nor one that the system has stopped can refuse."""
    hangs = ["hold the interpreter", "freeze"]
    with closing(make(Ordered())) as executor:

        def give_up(event: Event) -> None:
            if isinstance(event, EpochEnded):
                executor.cancel(event.number, 1)

        for number, what in enumerate(hangs):
            executor.submit(order(task(number, tmp_path), what))
        events = take(executor, len(hangs), give_up)
        assert all(isinstance(event, TrialBegan | EpochEnded | TrialLost) for event in events)


@pytest.mark.parametrize("make", [WARM], indirect=True)
def test_the_death_of_what_is_between_is_told(make: Make, tmp_path: Path) -> None:
    """The actor that keeps the slots is killed like any other process of the machine."""
    executor = make(Ordered())
    assert isinstance(executor, SlotExecutor)
    executor.submit(order(task(0, tmp_path), "sleep"))
    take_first(executor)
    executor.close()
    with pytest.raises(ExecutorDied, match="is gone"):
        executor.next_event(0.1)
    with pytest.raises(ExecutorDied):
        executor.submit(task(1, tmp_path))
    executor.close()
