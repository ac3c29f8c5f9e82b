"""The floor that only remembers: the last item of the history first, all others by popularity (ruling 13)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.sequence_data import SequenceData
from trainers.ranks import ScoreChunk, Split, history_and_target, training_counts


def repeat_last(data: SequenceData, split: Split, counted_on: SequenceData) -> ScoreChunk:
    """Scores the newest item of each user's history above everything, the rest with their training interactions.

    Where seen items are excluded it equals `popularity`, but for users whose target is the item just seen.
    """
    counts = torch.from_numpy(training_counts(counted_on)).to(torch.float64)

    def score(users: NDArray[np.int64]) -> Tensor:
        last = torch.tensor([int(history_and_target(data, int(user), split)[0][-1]) for user in users])
        scores = counts.repeat(len(users), 1)
        return scores.scatter_(1, last.unsqueeze(1), float(counts.max()) + 1)

    return score
