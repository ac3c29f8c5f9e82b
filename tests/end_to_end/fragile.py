"""A small training with real checkpoints that falls ill as it is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from tests.mixrec_automl.cluster.trainings import true_mrr
from trainers import checkpoint

CHECKPOINT = "last.safetensors"
SICK_EPOCH = 2


@dataclass(frozen=True)
class Fragile:
    """`epochs` of `seconds` each, with a checkpoint of `kilobytes` after each.

    `ills` names for some trials, by number, what befalls every attempt at them in their second epoch.
    """

    epochs: int = 2
    seconds: float = 0.1
    kilobytes: int = 100
    ills: tuple[tuple[int, str], ...] = ()

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        path = trial.folder / CHECKPOINT
        done = 0
        if path.exists():
            header = checkpoint.read_header(path)
            if header["trial"] != trial.number:
                raise AssertionError(f"trial {trial.number} found the checkpoint of trial {header['trial']}")
            done = int(header["epoch"])
        mrr = true_mrr(trial.architecture)
        for epoch in range((done if trial.recorded_epochs is None else trial.recorded_epochs) + 1, done + 1):
            on_epoch(epoch, {"validation_mrr": mrr * epoch / self.epochs, "seconds": self.seconds})
        for epoch in range(done + 1, self.epochs + 1):
            time.sleep(self.seconds)
            if epoch == SICK_EPOCH:
                for number, what in self.ills:
                    if number == trial.number:
                        ILLS[what](on_epoch)
            weights = {"weights": torch.zeros(self.kilobytes, 256)}
            checkpoint.write(path, weights, {"trial": trial.number, "epoch": epoch})
            go_on = on_epoch(epoch, {"validation_mrr": mrr * epoch / self.epochs, "seconds": self.seconds})
            if not go_on and epoch < self.epochs:
                return None
        return TrialScore(mrr, 0.001)


def _raise(_: OnEpoch) -> None:
    raise ArithmeticError("this design cannot be trained")


def _report_nan(on_epoch: OnEpoch) -> None:
    on_epoch(SICK_EPOCH, {"validation_mrr": float("nan")})


def _eat_memory(_: OnEpoch) -> None:
    """200 MB every 50 ms, touched, so that they count."""
    eaten = []
    for _meal in range(200):
        eaten.append(torch.ones(50_000_000))
        time.sleep(0.05)
    raise AssertionError("10 GB were eaten and nobody minded")


ILLS: Mapping[str, Callable[[OnEpoch], object]] = {
    "raise": _raise,
    "report NaN": _report_nan,
    "hang": lambda _: time.sleep(3600),
    "freeze": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "eat memory": _eat_memory,
}
