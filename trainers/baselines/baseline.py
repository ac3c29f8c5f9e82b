"""What training and evaluation ask of a baseline.

Legend: B users or rows, I items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.data.sequence_data import SequenceData, Split

Batch = TypeVar("Batch")
DrawnBatch = TypeVar("DrawnBatch", covariant=True)


class TrainingPart(Protocol[DrawnBatch]):
    """What is trained on."""

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[DrawnBatch]:
        """All of it once, in random order, `size` at a time; frozen dataclasses."""


class Baseline(nn.Module, ABC, Generic[Batch]):
    """Scores the catalogue for a user, or for the history of one."""

    num_users: int = 0
    """Users that it has a vector for"""
    started_from: str = "random weights"
    """Weights that the training began with, and what else it took from a published model"""

    @property
    def text_vectors(self) -> Tensor | None:
        """[I, t] what it reads of the items' texts"""
        return None

    @property
    def description(self) -> dict[str, Any]:
        """What else, besides its settings, the model is built from again without asking for anything: plain JSON."""
        return {}

    def begin_epoch(self) -> None:
        """Called before the first step of each epoch. What this and the next two change is in the state dict."""

    def begin_validation(self) -> None:
        """Called after the last step of each epoch."""

    def end_epoch(self, waited: int, load_best: Callable[[], None]) -> None:
        """Called after the validation of each epoch, `waited` epochs after the best one.

        Args:
            load_best: gives the model the state of the best epoch, where `waited` is not 0.
        """

    @abstractmethod
    def training_part(self, data: SequenceData) -> TrainingPart[Batch]:
        """The training part of `data`, and nothing else of it; made once for all epochs."""

    @abstractmethod
    def loss_terms(self, batch: Batch) -> tuple[Tensor, int]:
        """The loss as (sum of its terms, number of terms); random draws are torch's global ones."""

    @abstractmethod
    def score_users(self, data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:
        """[B, I] for the held-out item of each of `users`, from what lies before it."""

    @abstractmethod
    def score_history(self, items: NDArray[np.int32]) -> Tensor:
        """[I] after a history of item indices, oldest first, of a user who need not be known."""
