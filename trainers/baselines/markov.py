"""The floor that knows one step: what followed the newest item most often."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from trainers.baselines.popularity import by_popularity
from trainers.data.histories import ends_of
from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import ScoreChunk


def markov(data: SequenceData, counted_on: SequenceData) -> ScoreChunk:
    """Scores items with how often they directly follow the newest item of a history in the training part of
    `counted_on`; equals, and what never followed, come by their training interactions."""
    users, items = counted_on.training_pairs()
    follows = users[1:] == users[:-1]
    steps = (items[:-1][follows], items[1:][follows])
    size = counted_on.num_items
    counts = sparse.coo_array((np.ones(len(steps[0])), steps), shape=(size, size)).tocsr()  # adds up what repeats
    below_one = by_popularity(counted_on)

    def score_one(users: NDArray[np.int64], split: Split) -> Tensor:
        last = data.items[ends_of(data, users, split) - 1]
        return torch.from_numpy(counts[last].toarray()) + below_one

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [score_one(users, split) for split in splits]

    return score
