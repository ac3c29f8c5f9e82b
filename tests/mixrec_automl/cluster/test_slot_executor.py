"""What is true of warm slots alone, in real Ray Train workers on an embedded Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    ExecutorDied,
    TrialCompleted,
    TrialEnded,
    TrialFailed,
    TrialLost,
)
from mixrec_automl.cluster.ray_session import check_resources, fitting, ray_session
from mixrec_automl.cluster.reservations import COORDINATOR
from mixrec_automl.cluster.slot_executor import SlotExecutor
from mixrec_automl.search_config import ClusterConfig
from tests.mixrec_automl.cluster.test_executor_contract import take
from tests.mixrec_automl.cluster.trainings import Ordered, Probing, order, task
from trainers.errors import UserError

pytestmark = pytest.mark.end_to_end

needs_two_cpus = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a machine with two CPUs")


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session():
            yield


def pid_of(events: list[Event]) -> float:
    return next(event.metrics["pid"] for event in events if isinstance(event, EpochEnded))


def test_a_process_trains_one_trial_after_another_goes_on_after_a_raise_and_is_replaced_in_the_end(
    tmp_path: Path,
) -> None:
    with closing(SlotExecutor(Ordered(), ClusterConfig(trials_per_process=3), tmp_path / "ray")) as executor:
        pids = []
        for number, what in enumerate(["report process", "raise", "report process", "report process"]):
            executor.submit(order(task(number, tmp_path), what))
            pids.append(pid_of(take(executor, 1)))
    assert pids[0] == pids[1] == pids[2]
    assert pids[3] not in (pids[0], os.getpid())


def test_what_is_closed_counts_as_taken_no_longer(tmp_path: Path) -> None:
    """Or the next training of any number of processes would begin with fewer, or wait."""

    def taken(run: str) -> object:
        coordinator = ray.get_actor(COORDINATOR, namespace=COORDINATOR)
        return ray.get(coordinator.get_reserved_resources.remote(f"train-{run}"))

    with closing(SlotExecutor(Ordered(), ClusterConfig(), tmp_path / "ray")) as executor:
        executor.submit(order(task(0, tmp_path), "report process"))
        take(executor, 1)
        (run,) = ray.get(executor._runner.runs.remote())
        assert taken(run)
    assert not taken(run)


@needs_two_cpus
def test_two_workers_form_a_group_with_their_own_threads(tmp_path: Path) -> None:
    with closing(SlotExecutor(Probing(), ClusterConfig(workers_per_trial=2), tmp_path / "ray")) as executor:
        for number in range(2):
            executor.submit(task(number, tmp_path))
            _, epoch, ended = take(executor, 1)
            assert isinstance(epoch, EpochEnded)
            assert (epoch.metrics["workers"], epoch.metrics["threads"], epoch.metrics["omp"]) == (2, 1, 1)
            assert epoch.metrics["pid"] != os.getpid()
            assert ended == TrialCompleted(number, 1, 0.5, 0.01)
            found = [(tmp_path / str(number) / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
            assert found == [str(Path.cwd())] * 2


@dataclass(frozen=True)
class Together:
    """Adds up over the group, after the second worker of trial 0 has raised and that of trial 1 has died."""

    def __call__(self, trial: object, on_epoch: object) -> object:
        import torch.distributed as dist

        number = trial.number  # type: ignore[attr-defined]
        if dist.get_rank() == 1 and number == 0:
            raise ArithmeticError("this half cannot be trained")
        if dist.get_rank() == 1 and number == 1:
            os._exit(9)
        return Probing()(trial, on_epoch)  # type: ignore[arg-type]


@needs_two_cpus
@pytest.mark.fault
def test_of_two_workers_one_that_raises_fails_the_trial_and_one_that_dies_loses_it(tmp_path: Path) -> None:
    with closing(SlotExecutor(Together(), ClusterConfig(workers_per_trial=2), tmp_path / "ray")) as executor:  # type: ignore[arg-type]
        for number in range(3):
            executor.submit(task(number, tmp_path))
        events = take(executor, 3)
    failed, lost, completed = (event for event in events if isinstance(event, TrialEnded))
    assert isinstance(failed, TrialFailed)
    assert "this half cannot be trained" in failed.error
    assert isinstance(lost, TrialLost)
    assert (lost.number, completed) == (1, TrialCompleted(2, 1, 0.5, 0.01))


@dataclass(frozen=True)
class Unwelcome:
    """Cannot be unpickled where a worker is."""

    home: int

    def __setstate__(self, state: dict[str, int]) -> None:
        if state["home"] != os.getpid() and "RANK" in os.environ:
            raise ImportError("no such module on this machine")
        self.__dict__.update(state)

    def __call__(self, trial: object, on_epoch: object) -> None: ...


@pytest.mark.fault
def test_workers_that_never_come_up_are_told_rather_than_waited_for(tmp_path: Path) -> None:
    with closing(SlotExecutor(Unwelcome(os.getpid()), ClusterConfig(), tmp_path / "ray")) as executor:
        executor.submit(task(0, tmp_path))
        with pytest.raises(ExecutorDied, match="no such module on this machine"):
            take(executor, 1)


def test_too_few_resources_are_refused_with_what_is_missing() -> None:
    check_resources(ClusterConfig())
    with pytest.raises(UserError, match=r"2 x 300 processes with 4 CPUs each do not fit: 1 node\(s\) with .* hold"):
        check_resources(ClusterConfig(slots=2, workers_per_trial=300, cpus_per_worker=4))
    with pytest.raises(UserError, match="1 CPU and 99 GPUs each"):
        check_resources(ClusterConfig(gpus_per_worker=99))


def test_as_many_cpus_as_there_is_room_for() -> None:
    most = int(ray.cluster_resources()["CPU"])
    assert fitting(ClusterConfig(cpus_per_worker=most), None) == ClusterConfig(cpus_per_worker=most)
    assert fitting(ClusterConfig(cpus_per_worker=9 * most), None) == ClusterConfig(cpus_per_worker=most)
    few = ClusterConfig(workers_per_trial=9 * most, cpus_per_worker=2)
    assert fitting(few, 1) == replace(few, cpus_per_worker=1), "it begins with fewer workers"
    with pytest.raises(UserError, match="do not fit"):
        fitting(few, None)
