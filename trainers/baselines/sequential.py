"""What the sequential baselines share: item vectors, the loss over the catalogue, the next item after a row.

Legend: B rows, N places of a row, I items, d width, Q training targets.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.baselines.baseline import Baseline, TrainingPart
from trainers.baselines.rows import Rows, TrainingWindows, history_rows, to_rows
from trainers.data.sequence_data import SequenceData, Split
from trainers.device import move
from trainers.model.item_loss import item_cross_entropy

INITIAL_STD = 0.02
"""Of weights and embeddings, as in BERT and in the public versions of SASRec, BERT4Rec and FDSA"""


class SequentialModel(Baseline[Rows]):
    """Scores the catalogue for the item after a row."""

    def __init__(self, num_items: int, history: int) -> None:
        super().__init__()
        self.num_items, self.history = num_items, history

    @abstractmethod
    def loss_terms(self, rows: Rows) -> tuple[Tensor, int]:
        """The loss as (sum of its terms, number of terms)."""

    @abstractmethod
    def scores(self, rows: Rows) -> Tensor:
        """[B, I] for the item after each row."""

    def training_part(self, data: SequenceData) -> TrainingPart[Rows]:
        return TrainingWindows.of(data, self.history)

    def score_users(self, data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:
        rows = history_rows(data, users, split, self.history)
        return self.scores(move(rows, next(self.parameters()).device))

    def score_history(self, items: NDArray[np.int32]) -> Tensor:
        rows = to_rows([items[-self.history :]], self.num_items)
        return self.scores(move(rows, next(self.parameters()).device))[0]


def next_items(rows: Rows, num_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is read at each place, the item after it, and where that is a target: three times [B, N - 1]."""
    inputs, targets = rows.items[:, :-1], rows.items[:, 1:]
    places = torch.arange(1, rows.items.shape[1], device=targets.device)
    return inputs, targets, (targets != num_items) & (places >= rows.counted_from.unsqueeze(1))


def newest(states: Tensor, rows: Rows) -> Tensor:
    """[B, N, d] -> [B, d]: the state at each row's newest item."""
    return states[torch.arange(len(states), device=states.device), rows.last]


class CausalModel(SequentialModel):
    """Predicts at each place the item after it; items are scored by inner products with their input vectors."""

    def __init__(self, num_items: int, history: int, width: int) -> None:
        super().__init__(num_items, history)
        self.item_embedding = nn.Embedding(num_items + 1, width, padding_idx=num_items)

    @abstractmethod
    def states(self, items: Tensor) -> Tensor:
        """[B, N] items -> [B, N, d], where a place depends on itself and what lies before it."""

    def loss_terms(self, rows: Rows) -> tuple[Tensor, int]:
        inputs, targets, counted = next_items(rows, self.num_items)
        return self.item_loss(self.states(inputs)[counted], targets[counted]), int(counted.sum())

    def item_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Summed cross entropy of [Q, d] states over the whole catalogue."""
        vectors = self.item_embedding.weight[: self.num_items]
        return item_cross_entropy(states, vectors, vectors.new_zeros(self.num_items), targets)

    def scores(self, rows: Rows) -> Tensor:
        return newest(self.states(rows.items), rows) @ self.item_embedding.weight[: self.num_items].T
