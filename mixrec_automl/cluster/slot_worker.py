"""What a worker of a slot does all its life: take a trial, train it, tell how it ended, take the next."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch

from mixrec_automl.cluster import reservations
from mixrec_automl.cluster.attempt import run_attempt
from mixrec_automl.cluster.executor import EpochEnded, TrialFailed, TrialLost
from mixrec_automl.cluster.mailbox import WorkerProcess
from mixrec_automl.cluster.training import Training, TrialTask


@dataclass(frozen=True)
class SlotJob:
    """What travels to the workers of a slot."""

    slots: Any
    """The actor `SlotRunner`"""
    group: str
    trials: int
    """After so many the group ends, and another one with fresh memory takes its place"""


class WorkerError(RuntimeError):
    """A training raised in a worker that cannot go on. Its text is the traceback, which Ray does not carry."""


def work(config: dict[str, Any]) -> None:
    """The training function of the slot's `TorchTrainer`; every worker runs it.

    Raises:
        WorkerError: a training raised, and its process is not to be trusted any more: the other workers of the group
            wait for this one, or it holds a GPU, which an error may leave unusable.
    """
    job: SlotJob = config["job"]
    context = ray.train.get_context()
    rank, is_alone = context.get_world_rank(), context.get_world_size() == 1
    runner = job.slots
    # Not part of the job: Ray Train never gives back what it reserved for workers that cannot read theirs.
    training: Training = ray.get(runner.get_training.remote())
    process = WorkerProcess(ray.get_runtime_context().get_node_id(), os.getpid())
    if not ray.get(runner.join.remote(job.group, process, reservations.mine())):
        return

    def report(event: EpochEnded) -> bool:
        go_on: bool = ray.get(runner.post.remote(job.group, event))
        return go_on

    for position in range(job.trials):
        trial: TrialTask | None = ray.get(runner.next_trial.remote(job.group, rank, position))
        if trial is None:
            return
        if rank == 0 and not ray.get(runner.begin.remote(job.group)):
            return
        ended = run_attempt(training, trial, report)
        if isinstance(ended, TrialFailed | TrialLost) and not is_alone:
            ray.get(runner.account.remote(job.group, ended))
            raise WorkerError(_text(ended))
        if rank == 0:
            ray.get(runner.post.remote(job.group, ended))
        if isinstance(ended, TrialFailed) and torch.cuda.is_available():
            raise WorkerError(_text(ended))


def _text(ended: TrialFailed | TrialLost) -> str:
    return ended.error if isinstance(ended, TrialFailed) else ended.reason
