"""MF and NCF on their own: the models that lend their vectors to MixRec, as recommenders.

Legend: B users, N interactions, k negatives of each, I items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.baselines.baseline import Baseline
from trainers.collaborative_pretraining import training_interactions, unseen
from trainers.data.sequence_data import SequenceData, Split
from trainers.model.collaborative import CollaborativeModel


@dataclass(frozen=True)
class Interactions:
    """Positives and negatives of a step."""

    users: Tensor
    """[N]"""
    positives: Tensor
    """[N]"""
    negatives: Tensor
    """[N, k]"""


class CollaborativeBaseline(Baseline[Interactions]):
    """A collaborative model, trained on the interactions of the training part in no order."""

    def __init__(self, model: CollaborativeModel, negatives: int) -> None:
        super().__init__()
        self.model, self.negatives = model, negatives

    def batches(self, data: SequenceData, size: int, rng: np.random.Generator) -> Iterator[Interactions]:
        users, items, known = training_interactions(data)
        order = rng.permutation(len(users))
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            negatives = unseen(rng, users[chosen], self.negatives, data.num_items, known)
            parts = (users[chosen], items[chosen], negatives)
            yield Interactions(*(torch.from_numpy(part.astype(np.int64)) for part in parts))

    def loss_terms(self, batch: Interactions) -> tuple[Tensor, int]:
        return self.model.loss_terms(batch.users, batch.positives, batch.negatives)

    def score_users(self, data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:  # noqa: ARG002
        """The same for both splits: what lies between training and test item is not learned from."""
        return self.model.score_all(torch.from_numpy(users).to(next(self.parameters()).device))
