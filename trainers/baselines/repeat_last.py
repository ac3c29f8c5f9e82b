"""The floor that only remembers: the last item of the history first, all others by popularity (ruling 13)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.histories import ends_of
from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import ScoreChunk


def repeat_last(data: SequenceData, counted_on: SequenceData) -> ScoreChunk:
    """Scores the newest item of each user's history above everything, the rest with their training interactions.

    Where seen items are excluded it equals `popularity`, but for users whose target is the item just seen.
    """
    counts = torch.from_numpy(counted_on.training_counts()).to(torch.float64)

    def score_one(users: NDArray[np.int64], split: Split) -> Tensor:
        last = torch.from_numpy(data.items[ends_of(data, users, split) - 1].astype(np.int64))
        scores = counts.repeat(len(users), 1)
        return scores.scatter_(1, last.unsqueeze(1), float(counts.max()) + 1)

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [score_one(users, split) for split in splits]

    return score
