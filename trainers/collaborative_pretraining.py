"""Trains M_cf on its own, before MixRec reads it frozen (paper, 3.3 and Fig. 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import TrainingConfig
from trainers.data.sequence_data import SequenceData
from trainers.model.collaborative import CollaborativeModel

PAIRS_AT_ONCE = 512
"""Interactions of a step."""
_DRAWS = 2
"""Sets these draws apart from those of the sampler, which count from (seed, epoch, 0) and (seed, epoch, 1)."""


@dataclass(frozen=True)
class Interactions:
    """Positives and negatives of a step."""

    users: Tensor
    """[N]"""
    positives: Tensor
    """[N]"""
    negatives: Tensor
    """[N, k]"""

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """As `CollaborativeModel.loss_terms` takes them."""
        return self.users, self.positives, self.negatives


@dataclass(frozen=True, eq=False)
class TrainingInteractions:
    """The training interactions of all who have not taken everything, for whom no item could be a negative."""

    users: NDArray[np.int64]
    """[N]"""
    items: NDArray[np.int32]
    """[N]"""
    known: NDArray[np.int64]
    """As `unseen` reads it"""
    num_items: int
    negatives: int
    """Of each positive"""

    @classmethod
    def of(cls, data: SequenceData, negatives: int) -> TrainingInteractions:
        users, items = data.training_pairs()
        known = np.unique(users * data.num_items + items)
        taken = np.bincount(known // data.num_items, minlength=data.num_users)
        kept = taken[users] < data.num_items
        return cls(users[kept], items[kept], known, data.num_items, negatives)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Interactions]:
        """All of them once, in random order, `size` at a time."""
        order = rng.permutation(len(self.users))
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            users, items = self.users[chosen], self.items[chosen]
            parts = (users, items, unseen(rng, users, self.negatives, self.num_items, self.known))
            yield Interactions(*(torch.from_numpy(part.astype(np.int64)) for part in parts))


def pretrain(model: CollaborativeModel, data: SequenceData, config: TrainingConfig, seed: int) -> None:
    """`config.collaborative_epochs` passes of AdamW over the training interactions of `data`, and no others.

    Its gradients are computed whether or not the weights ask for them, and the same seed gives the same weights.
    """
    interactions = TrainingInteractions.of(data, config.collaborative_negatives)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.collaborative_learning_rate, weight_decay=config.weight_decay
    )
    device = next(model.parameters()).device
    with torch.enable_grad():
        for epoch in range(config.collaborative_epochs):
            rng = np.random.default_rng([seed, epoch, _DRAWS])
            for batch in interactions.batches(PAIRS_AT_ONCE, rng):
                total, terms = model.loss_terms(*(part.to(device) for part in batch.parts))
                optimizer.zero_grad(set_to_none=True)
                (total / terms).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    for parameter, is_wanted in zip(model.parameters(), wanted, strict=True):
        parameter.grad = None
        parameter.requires_grad_(is_wanted)


def unseen(
    rng: np.random.Generator, users: NDArray[np.int64], count: int, num_items: int, known: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[B, count] items, uniform among those that each of `users` [B] did not take in the training part (ruling 17).

    Args:
        known: sorted, distinct `user * num_items + item` of the training part; no user has taken everything.
    """
    drawn = rng.integers(num_items, size=(len(users), count))
    while True:
        keys = users[:, None] * num_items + drawn
        found = np.searchsorted(known, keys)
        is_seen = known[np.minimum(found, len(known) - 1)] == keys
        if not is_seen.any():
            return drawn
        drawn[is_seen] = rng.integers(num_items, size=int(is_seen.sum()))
