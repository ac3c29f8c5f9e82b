"""Trials in real Ray Train workers on an embedded Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixrec_automl.cluster.executor import EpochEnded, Event, Executor, TrialCompleted, TrialFailed, TrialStopped
from mixrec_automl.cluster.ray_session import check_resources, ray_session
from mixrec_automl.cluster.torch_trainer_executor import TorchTrainerExecutor
from mixrec_automl.search_config import ClusterConfig
from tests.mixrec_automl.cluster.trainings import Counting, Probing, Troubled, task
from trainers.errors import UserError

pytestmark = pytest.mark.end_to_end

needs_two_cpus = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a machine with two CPUs")


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session():
            yield


def events_until_ended(executor: Executor, trials: int, *, stop_after: int | None = None) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + 90
    while sum(not isinstance(event, EpochEnded) for event in events) < trials:
        assert time.monotonic() < deadline, f"nothing more came after {events}"
        event = executor.next_event(0.5)
        if event is not None:
            events.append(event)
            if len(events) == stop_after:
                executor.stop()
    return events


@pytest.mark.usefixtures("session")
@needs_two_cpus
def test_trials_side_by_side_one_of_which_raises(tmp_path: Path) -> None:
    executor = TorchTrainerExecutor(Troubled(raising=(1,)), ClusterConfig(slots=2), tmp_path / "ray")
    executor.submit(task(0, tmp_path))
    executor.submit(task(1, tmp_path))
    events = events_until_ended(executor, 2)
    good = [event for event in events if event.number == 0]
    assert [type(event) for event in good] == [EpochEnded, EpochEnded, TrialCompleted]
    assert [event.epoch for event in good if isinstance(event, EpochEnded)] == [1, 2]
    (bad,) = (event for event in events if event.number == 1)
    assert isinstance(bad, TrialFailed)
    assert bad.error.rstrip().endswith("ArithmeticError: trial 1 cannot be trained")
    assert "trainings.py" in bad.error, "the traceback is that of the training"
    executor.close()


@pytest.mark.usefixtures("session")
@needs_two_cpus
def test_two_workers_form_a_group_with_their_own_threads(tmp_path: Path) -> None:
    executor = TorchTrainerExecutor(Probing(), ClusterConfig(workers_per_trial=2), tmp_path / "ray")
    executor.submit(task(0, tmp_path))
    epoch, ended = events_until_ended(executor, 1)
    assert isinstance(epoch, EpochEnded)
    assert (epoch.metrics["workers"], epoch.metrics["threads"], epoch.metrics["omp"]) == (2, 1, 1)
    assert epoch.metrics["pid"] != os.getpid()
    assert ended == TrialCompleted(0, 1, 0.5, 0.01)
    assert [(tmp_path / "0" / f"rank-{rank}.txt").read_text() for rank in (0, 1)] == [str(Path.cwd())] * 2
    executor.close()


@pytest.mark.usefixtures("session")
def test_a_dead_worker_is_a_failed_trial_and_a_stopped_one_goes_on(tmp_path: Path) -> None:
    executor = TorchTrainerExecutor(Troubled(dying=(0,)), ClusterConfig(), tmp_path / "ray")
    executor.submit(task(0, tmp_path))
    (ended,) = events_until_ended(executor, 1)
    assert isinstance(ended, TrialFailed)
    assert "died" in ended.error
    executor.close()

    training = Counting(epochs=20, seconds=0.2)
    executor = TorchTrainerExecutor(training, ClusterConfig(), tmp_path / "ray")
    executor.submit(task(1, tmp_path))
    first = events_until_ended(executor, 1, stop_after=1)
    assert first[-1] == TrialStopped(1, 1)
    assert len(first) < 20
    executor.close()
    reached = int((tmp_path / "1" / "epoch.txt").read_text())
    assert reached == len(first) - 1


@pytest.mark.usefixtures("session")
def test_too_few_resources_are_refused_with_what_is_missing() -> None:
    check_resources(ClusterConfig())
    with pytest.raises(UserError, match=r"2 x 300 processes with 4 CPUs each do not fit: 1 node\(s\) with .* hold"):
        check_resources(ClusterConfig(slots=2, workers_per_trial=300, cpus_per_worker=4))
    with pytest.raises(UserError, match="1 CPU and 99 GPUs each"):
        check_resources(ClusterConfig(gpus_per_worker=99))
