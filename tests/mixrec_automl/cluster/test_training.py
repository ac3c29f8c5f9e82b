"""What every executor does around a training, and the executor without processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mixrec_automl.cluster.executor import EpochEnded, Event, TrialCompleted, TrialFailed, TrialStopped
from mixrec_automl.cluster.hub import Hub
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import NotFiniteError, OnEpoch, Training, TrialScore, TrialTask, run_training
from tests.mixrec_automl.cluster.trainings import Counting, Troubled, task, true_mrr


def events_of(training: Training, *trials: TrialTask, stop_after: int | None = None) -> list[Event]:
    executor = InProcessExecutor(training)
    for trial in trials:
        executor.submit(trial)
    events: list[Event] = []
    while sum(not isinstance(event, EpochEnded) for event in events) < len(trials):
        event = executor.next_event(5)
        assert event is not None, f"nothing came after {events}"
        events.append(event)
        if len(events) == stop_after:
            executor.stop()
    assert executor.next_event(0.01) is None
    executor.close()
    executor.close()
    return events


def test_epochs_come_in_order_and_the_end_comes_last(tmp_path: Path) -> None:
    events = events_of(Counting(epochs=3), task(4, tmp_path, bits="100"))
    assert [type(event) for event in events] == [EpochEnded] * 3 + [TrialCompleted]
    assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [1, 2, 3]
    assert events[-1] == TrialCompleted(4, 1, true_mrr(task(4, tmp_path, bits="100").architecture), 0.001)


def test_a_stopped_trial_goes_on_where_it_was(tmp_path: Path) -> None:
    training = Counting(epochs=6, seconds=0.05)
    first = events_of(training, task(0, tmp_path), stop_after=2)
    assert first[-1] == TrialStopped(0, 1)
    second = events_of(training, task(0, tmp_path, attempt=2))
    epochs = [event.epoch for event in first + second if isinstance(event, EpochEnded)]
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert isinstance(second[-1], TrialCompleted)


def test_a_stop_in_the_last_epoch_completes_the_trial(tmp_path: Path) -> None:
    events = events_of(Counting(epochs=2, seconds=0.1), task(0, tmp_path), stop_after=1)
    assert isinstance(events[-1], TrialCompleted)


def test_a_failure_carries_its_traceback(tmp_path: Path) -> None:
    events = events_of(Troubled(raising=(1,)), task(0, tmp_path), task(1, tmp_path))
    failed = [event for event in events if isinstance(event, TrialFailed)]
    assert [event.number for event in failed] == [1]
    assert "ArithmeticError: trial 1 cannot be trained" in failed[0].error
    assert "trainings.py" in failed[0].error
    assert any(isinstance(event, TrialCompleted) and event.number == 0 for event in events)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, bad: float) -> None:
    def diverging(_: TrialTask, on_epoch: OnEpoch) -> TrialScore:
        on_epoch(1, {"loss_seq": 1.0})
        on_epoch(2, {"loss_seq": bad})
        raise AssertionError("must not be reached")

    posted: list[int] = []
    with pytest.raises(NotFiniteError, match="epoch 2 reported loss_seq"):
        run_training(diverging, task(0, tmp_path), lambda epoch, _: posted.append(epoch) is None)
    assert posted == [1]
    with pytest.raises(NotFiniteError, match="mrr"):
        run_training(lambda *_: TrialScore(bad, 0.1), task(0, tmp_path), lambda *_: True)


def test_the_hub_keeps_order_waits_and_says_stop() -> None:
    async def use() -> None:
        hub = Hub()
        assert await hub.take(0.01) is None
        events = [EpochEnded(0, 1, epoch, {}) for epoch in (1, 2, 3)]
        assert [await hub.post(event) for event in events] == [True] * 3
        assert [await hub.take(1) for _ in events] == events
        taking = asyncio.create_task(hub.take(5))
        await asyncio.sleep(0)
        await hub.stop()
        assert not await hub.post(TrialStopped(0, 1)), "a waiting take blocks no post"
        assert await taking == TrialStopped(0, 1)

    asyncio.run(use())
