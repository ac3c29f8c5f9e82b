"""What a trial asks of a worker, and what comes back: the values and the function that every executor shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from search_spaces.architecture import Architecture
from search_spaces.design import Design

TRAINABLE_PARAMETERS = "trainable_parameters"
"""Among `TrialScore.metrics`: how many numbers the training changed"""
OnEpoch = Callable[[int, Mapping[str, float]], bool]
"""Takes the finished epoch, from 1, and its metrics; answers whether to go on."""


@dataclass(frozen=True)
class TrialTask:
    """One attempt at training one design."""

    number: int
    attempt: int
    """From 1"""
    design: Design
    seed: int
    """Of the training"""
    folder: Path
    """Where its checkpoints lie; the same for all attempts, so that a later one goes on where an earlier one ended"""
    variant: str = ""
    """Of a study: which of its configurations; the trials of a search share one"""
    recorded_epochs: int | None = None
    """How many epochs are recorded. What was finished beyond, by an attempt whose last reports were lost, is reported
    first; None: it is not reported"""

    @property
    def architecture(self) -> Architecture:
        return self.design.architecture


@dataclass(frozen=True)
class TrialScore:
    """What a finished training is worth."""

    mrr: float
    """Best validation MRR over its epochs"""
    standard_error: float
    """Of `mrr` over users"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else is known at the end, for the record; flat names"""


class Training(Protocol):
    """Trains a design. Importable by name, for it travels to workers; with several workers, each calls it."""

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        """The score, or None where `on_epoch` answered False before the last epoch.

        Of several workers only the first calls `on_epoch`, and its answer holds for all.
        """


class NotFiniteError(ValueError):
    """A training reported NaN or infinity: it diverged, and its score means nothing."""


def run_training(training: Training, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
    """Run `training`, refusing numbers that are none.

    Raises:
        NotFiniteError: a metric or the score is NaN or infinite.
        Exception: whatever `training` raises.
    """

    def checked_on_epoch(epoch: int, metrics: Mapping[str, float]) -> bool:
        _check_finite(metrics, f"epoch {epoch}")
        return on_epoch(epoch, metrics)

    score = training(trial, checked_on_epoch)
    if score is not None:
        numbers = {**score.metrics, "mrr": score.mrr, "standard_error": score.standard_error}
        _check_finite(numbers, "the training")
    return score


def _check_finite(metrics: Mapping[str, float], where: str) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NotFiniteError(f"{where} reported {name} = {value}")
