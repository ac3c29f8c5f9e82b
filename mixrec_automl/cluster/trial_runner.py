"""Runs trials as Ray Train runs, one `TorchTrainer` each, from a process of its own.

`TorchTrainer.fit` blocks, so side-by-side trials need a thread each. They are those of one actor and not of the
controller's process: where Ray is shut down under a thread that still waits in it, Ray ends the whole process.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from mixrec_automl.cluster.executor import EpochEnded, TrialCompleted, TrialEnded, TrialFailed, TrialStopped
from mixrec_automl.cluster.training import Training, TrialScore, TrialTask, run_training
from mixrec_automl.search_config import ClusterConfig

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class _Job:
    """What travels to a worker."""

    training: Training
    trial: TrialTask
    hub: Any


class WorkerError(RuntimeError):
    """A training raised in a worker. Its text is the traceback, which an exception loses on its way out of Ray."""


class TrialRunner:
    """An actor with one thread for each slot and one more; see `TorchTrainerExecutor`."""

    def __init__(self, training: Training, cluster: ClusterConfig, folder: Path, hub: Any) -> None:
        self._training = training
        self._cluster = cluster
        self._folder = folder
        self._hub = hub

    def is_there(self) -> None:
        """Returns, which it does not where this process has died."""

    def run(self, trial: TrialTask) -> None:
        """Run `trial` to its end and post what came of it, after all that its workers have posted."""
        ended: TrialEnded
        try:
            score: TrialScore | None = self._trainer(trial).fit().return_value
        except TrainingFailedError as error:
            ended = TrialFailed(trial.number, trial.attempt, _explain(error))
        except Exception:
            ended = TrialFailed(trial.number, trial.attempt, traceback.format_exc())
        else:
            if score is None:
                ended = TrialStopped(trial.number, trial.attempt)
            else:
                ended = TrialCompleted(trial.number, trial.attempt, score.mrr, score.standard_error)
        ray.get(self._hub.post.remote(ended))

    def _trainer(self, trial: TrialTask) -> TorchTrainer:
        cpus, gpus = self._cluster.cpus_per_worker, self._cluster.gpus_per_worker
        # Set in the environment of the new process, because torch reads them when it is imported.
        threads = {name: str(cpus) for name in THREAD_VARIABLES}
        return TorchTrainer(
            _work,
            train_loop_config={"job": _Job(self._training, trial, self._hub)},
            scaling_config=ScalingConfig(
                num_workers=self._cluster.workers_per_trial,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=RunConfig(
                name=f"trial-{trial.number}-attempt-{trial.attempt}",
                storage_path=str(self._folder),
                # The controller of the search decides on further attempts: they are recorded.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": threads},
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )


def _work(config: dict[str, Any]) -> TrialScore | None:
    """Runs in every worker of a trial."""
    job: _Job = config["job"]

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> bool:
        event = EpochEnded(job.trial.number, job.trial.attempt, epoch, dict(metrics))
        go_on: bool = ray.get(job.hub.post.remote(event))
        return go_on

    try:
        return run_training(job.training, job.trial, on_epoch)
    except Exception:
        raise WorkerError(traceback.format_exc()) from None


def _explain(error: TrainingFailedError) -> str:
    """The traceback of each worker that raised, or how it died."""
    if not isinstance(error, WorkerGroupError):
        return str(error)
    failures = sorted(error.worker_failures.items())
    if len(failures) == 1:
        return str(failures[0][1])
    return "\n".join(f"worker {rank}: {failure}" for rank, failure in failures)
