"""One Ray `TorchTrainer` per trial, behind the protocol of `executor`.

A trial that does nothing costs 9 seconds of CPU and 6 to 7 of time on 2 cores, nearly all of it imports: 2.7 s of the
CPU time is Ray Train's controller, 2.3 s the worker, 3.6 s three small actors of Ray Train.
"""

from __future__ import annotations

from pathlib import Path

import ray

from mixrec_automl.cluster.executor import Event
from mixrec_automl.cluster.hub import Hub
from mixrec_automl.cluster.training import Training, TrialTask
from mixrec_automl.cluster.trial_runner import TrialRunner
from mixrec_automl.search_config import ClusterConfig

TRAIN_SETTINGS = {
    # How often Ray Train looks whether a worker has ended, seconds: its 2 would delay every trial's end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A worker stays in the folder of its parent, so that a relative path means the same everywhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class TorchTrainerExecutor:
    """An `Executor` on the Ray cluster that this process is connected to.

    Args:
        training: what a worker runs.
        cluster: slots, processes of a trial, and cores and GPUs of each.
        folder: for the bookkeeping files of Ray Train; on a cluster of several nodes all must reach it.
    """

    def __init__(self, training: Training, cluster: ClusterConfig, folder: Path) -> None:
        self._hub = ray.remote(num_cpus=0)(Hub).remote()
        runner = ray.remote(num_cpus=0, max_concurrency=cluster.slots + 1)(TrialRunner)
        self._runner = runner.options(runtime_env={"env_vars": TRAIN_SETTINGS}).remote(
            training, cluster, folder, self._hub
        )

    def submit(self, trial: TrialTask) -> None:
        self._runner.run.remote(trial)

    def next_event(self, timeout: float) -> Event | None:
        """See `Executor`. Raises `ray.exceptions.RayActorError` where the processes that run trials have died."""
        event: Event | None = ray.get(self._hub.take.remote(timeout))
        if event is None:
            ray.get(self._runner.is_there.remote())
        return event

    def stop(self) -> None:
        ray.get(self._hub.stop.remote())

    def close(self) -> None:
        # All processes of the trials belong to the runner and die with it.
        for actor in (self._runner, self._hub):
            ray.kill(actor)
