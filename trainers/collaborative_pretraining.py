"""Trains M_cf on its own, before MixRec reads it frozen (paper, 3.3 and Fig. 7)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.config import TrainingConfig
from trainers.data.sequence_data import SequenceData
from trainers.model.collaborative import CollaborativeModel

PAIRS_AT_ONCE = 512
"""Interactions of a step."""
_DRAWS = 2
"""Sets these draws apart from those of the sampler, which count from (seed, epoch, 0) and (seed, epoch, 1)."""


def pretrain(model: CollaborativeModel, data: SequenceData, config: TrainingConfig, seed: int) -> None:
    """`config.collaborative_epochs` passes of AdamW over the training interactions of `data`, and no others.

    Its gradients are computed whether or not the weights ask for them, and the same seed gives the same weights.
    """
    users, items, known = training_interactions(data)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.collaborative_learning_rate, weight_decay=config.weight_decay
    )
    device = next(model.parameters()).device
    with torch.enable_grad():
        for epoch in range(config.collaborative_epochs):
            rng = np.random.default_rng([seed, epoch, _DRAWS])
            order = rng.permutation(len(users))
            for first in range(0, len(order), PAIRS_AT_ONCE):
                chosen = order[first : first + PAIRS_AT_ONCE]
                negatives = unseen(rng, users[chosen], config.collaborative_negatives, data.num_items, known)
                batch = (torch.from_numpy(part.astype(np.int64)) for part in (users[chosen], items[chosen], negatives))
                total, terms = model.loss_terms(*(part.to(device) for part in batch))
                optimizer.zero_grad(set_to_none=True)
                (total / terms).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    for parameter, is_wanted in zip(model.parameters(), wanted, strict=True):
        parameter.grad = None
        parameter.requires_grad_(is_wanted)


def training_interactions(data: SequenceData) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """The training interactions (users [N], items [N]) of all who have not taken everything, for whom no item could be
    a negative; and `known` as `unseen` reads it."""
    users, items = data.training_pairs()
    known = np.unique(users * data.num_items + items)
    taken = np.bincount(known // data.num_items, minlength=data.num_users)
    kept = taken[users] < data.num_items
    return users[kept], items[kept], known


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
