"""The floor that knows who took what: items near those of the history (Sarwar et al., WWW 2001)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from trainers.baselines.popularity import by_popularity
from trainers.data.histories import histories
from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import ScoreChunk

_LEAST = 1e-9
"""Weighs popularity so that it decides between equals alone: no cosine of sets of fewer than 1e9 users is smaller."""


def item_knn(data: SequenceData, counted_on: SequenceData) -> ScoreChunk:
    """Scores items with the sum of their cosine to the distinct items of a history; equals come by popularity.

    The cosine is that of the items' sets of users in the training part of `counted_on`; of an item to itself it is 0.
    """
    users, items = counted_on.training_pairs()
    shape = (counted_on.num_users, counted_on.num_items)
    interactions = sparse.coo_array((np.ones(len(users)), (users, items)), shape=shape).tocsr()
    taken = (interactions > 0).astype(np.float64)  # once, however often
    sizes = np.sqrt(np.maximum(taken.sum(axis=0), 1))
    near = sparse.csr_array(taken.T @ taken)
    near = sparse.csr_array(sparse.diags_array(1 / sizes) @ near @ sparse.diags_array(1 / sizes))
    near.setdiag(0)
    between_equals = _LEAST * by_popularity(counted_on)

    def score_one(users: NDArray[np.int64], split: Split) -> Tensor:
        rows, read = histories(data, users, split)
        history = sparse.coo_array((np.ones(len(rows)), (rows, read)), shape=(len(users), data.num_items)).tocsr()
        return torch.from_numpy(((history > 0).astype(np.float64) @ near).toarray()) + between_equals

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [score_one(users, split) for split in splits]

    return score
