"""Trials in *warm slots*: groups of Ray Train workers that train one trial after another.

A process that is there already, with its libraries imported and data and backbone loaded, begins a trial in
milliseconds; a new group takes seconds (`benchmarks/slot_overhead.py` measures both). `cluster.trials_per_process: 1`
gives each trial processes of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixrec_automl.cluster.executor import Event, ExecutorDied
from mixrec_automl.cluster.reservations import ANSWER_SECONDS, all_of_this_job, give_back, withdraw
from mixrec_automl.cluster.slot_runner import SlotRunner
from mixrec_automl.cluster.training import Training, TrialTask
from mixrec_automl.search_config import ClusterConfig

TRAIN_SETTINGS = {
    # How often Ray Train looks whether a worker has ended, seconds: its 2 would delay every recovery.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A worker stays in the folder of its parent, so that a relative path means the same everywhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
CALLS_AT_ONCE = 8
"""Of the controller, and of workers that report, beside those that wait for a trial."""
ELASTIC_SETTINGS = {
    # How long a group waits for its room, seconds. It is made for the machines that are there, unless what Ray Train
    # knows of them is old, which it may be by 20 seconds: then one for fewer is needed, and not more patience.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
"""Of groups that begin with as many workers as there are."""
PATIENCE = 60.0
"""Seconds within which the actor answers; one that does not is as good as dead."""


class SlotExecutor:
    """An `Executor` on the Ray cluster that this process is connected to. The slots come up at once, empty; none does
    before `use` where the cluster is shared.

    A process has one at a time, for what one leaves reserved the next one sets free.

    Args:
        training: what a worker runs.
        cluster: slots, processes of a trial, and cores and GPUs of each.
        folder: for the bookkeeping files of Ray Train; on a cluster of several nodes all must reach it.
        is_shared: whether other searches use the cluster as well; `MachinesChanged` then tells what it has to offer.
        fewest_workers: processes with which a trial begins or goes on where there are no more; None: with all. Once
            there is room for more, `TrialStopped` tells that the next attempt has them.

    Raises:
        ExecutorDied: Ray itself is gone.
    """

    def __init__(
        self,
        training: Training,
        cluster: ClusterConfig,
        folder: Path,
        *,
        is_shared: bool = False,
        fewest_workers: int | None = None,
    ) -> None:
        if not any(node["Alive"] for node in ray.nodes()):
            raise ExecutorDied("no machine of the Ray cluster is there any more")
        give_back(all_of_this_job())
        waiting = cluster.slots * cluster.workers_per_trial
        runner = ray.remote(num_cpus=0, max_concurrency=2 * waiting + CALLS_AT_ONCE)(SlotRunner)
        # Beside the controller, without whom it is of no use: the death of another node costs that node's trials alone.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        settings = TRAIN_SETTINGS | ({} if fewest_workers is None else ELASTIC_SETTINGS)
        runner = runner.options(runtime_env={"env_vars": settings}, scheduling_strategy=here)
        self._runner = runner.remote(training, cluster, folder, is_shared, fewest_workers)

    def submit(self, trial: TrialTask) -> None:
        with _death_noticed():
            ray.get(self._runner.submit.remote(trial), timeout=PATIENCE)

    def next_event(self, timeout: float) -> Event | None:
        with _death_noticed():
            event, trouble = ray.get(self._runner.next_event.remote(timeout), timeout=timeout + PATIENCE)
        if event is None and trouble is not None:
            raise ExecutorDied(trouble)
        found: Event | None = event
        return found

    def use(self, slots: int) -> None:
        with _death_noticed():
            ray.get(self._runner.use.remote(slots), timeout=PATIENCE)

    def end_early(self, number: int, attempt: int) -> None:
        with _death_noticed():
            ray.get(self._runner.end_early.remote(number, attempt), timeout=PATIENCE)

    def cancel(self, number: int, attempt: int) -> None:
        with _death_noticed():
            ray.get(self._runner.cancel.remote(number, attempt), timeout=PATIENCE)

    def stop(self) -> None:
        with _death_noticed():
            ray.get(self._runner.stop.remote(), timeout=PATIENCE)

    def close(self) -> None:
        runs: list[str] = []
        with contextlib.suppress(RayError):  # as where it is dead
            runs = ray.get(self._runner.runs.remote(), timeout=ANSWER_SECONDS)
        # All processes of the trials belong to the runner and die with it.
        ray.kill(self._runner)
        give_back(all_of_this_job())
        withdraw(runs)


@contextmanager
def _death_noticed() -> Iterator[None]:
    try:
        yield
    except (RayActorError, OutOfMemoryError, GetTimeoutError) as error:  # the second one: Ray ended it to get memory
        raise ExecutorDied(f"the process that keeps the slots up is gone: {error}") from error
