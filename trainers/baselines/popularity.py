"""The floor that knows no user: items by the number of their training interactions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import ScoreChunk


def popularity(counted_on: SequenceData) -> ScoreChunk:
    """Scores every item with its training interactions in `counted_on`; equally popular items tie."""
    # float64: counts stay exact far beyond 2^24.
    counts = torch.from_numpy(counted_on.training_counts()).to(torch.float64)

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [counts.expand(len(users), -1)] * len(splits)

    return score


def by_popularity(counted_on: SequenceData) -> Tensor:
    """[I] training interactions over one more than all of them together, so below one; float64."""
    counts = torch.from_numpy(counted_on.training_counts()).to(torch.float64)
    return counts / (counts.sum() + 1)
