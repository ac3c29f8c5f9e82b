"""What every executor does around a training, and the executor without processes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mixrec_automl.cluster.attempt import run_attempt
from mixrec_automl.cluster.executor import EpochEnded, Event, TrialCompleted, TrialEnded, TrialFailed, TrialLost
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import NotFiniteError, OnEpoch, Training, TrialScore, TrialTask, run_training
from tests.mixrec_automl.cluster.trainings import Counting, task


def events_of(training: Training, *trials: TrialTask, stop_after: int | None = None) -> list[Event]:
    executor = InProcessExecutor(training)
    for trial in trials:
        executor.submit(trial)
    events: list[Event] = []
    while sum(isinstance(event, TrialEnded) for event in events) < len(trials):
        event = executor.next_event(5)
        assert event is not None, f"nothing came after {events}"
        events.append(event)
        if len(events) == stop_after:
            executor.stop()
    assert executor.next_event(0.01) is None
    executor.close()
    executor.close()
    return events


def test_a_stop_in_the_last_epoch_completes_the_trial(tmp_path: Path) -> None:
    events = events_of(Counting(epochs=2, seconds=0.1), task(0, tmp_path), stop_after=2)
    assert isinstance(events[-1], TrialCompleted)


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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_file_system_in_trouble_is_told_from_a_mistake(tmp_path: Path, number: int) -> None:
    def raised_while_handling(_: TrialTask, __: OnEpoch) -> TrialScore:
        try:
            raise OSError(number, "disk")
        except OSError:
            raise RuntimeError("cannot save")  # noqa: B904 - as code that does not say "from" does

    lost = run_attempt(raised_while_handling, task(0, tmp_path), lambda *_: True)
    assert isinstance(lost, TrialLost)
    assert lost.is_storage

    def broken(_: EpochEnded) -> bool:
        raise ConnectionError("the way to the controller is broken")

    lost = run_attempt(Counting(epochs=2), task(0, tmp_path), broken)
    assert isinstance(lost, TrialLost)
    assert not lost.is_storage

    def missing(_: TrialTask, __: OnEpoch) -> TrialScore:
        raise FileNotFoundError(errno.ENOENT, "no such file", "items.jsonl")

    assert isinstance(run_attempt(missing, task(0, tmp_path), lambda *_: True), TrialFailed)
