"""What a prepared data set looks like, for `data show` and the log of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers.data.histories import repeats
from trainers.data.sequence_data import SequenceData

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class DataSummary:
    """Facts that bear on training and on reading its scores."""

    users: int
    items: int
    interactions: int
    training_interactions: int
    items_without_training: int
    """Catalogue items that no training interaction names."""
    length_quantiles: dict[str, int]
    """Interactions of a user, held-out ones included, at 0, 25, 50, 75, 95 and 100 %."""
    history: int
    targets_kept: float
    """Share of the training targets (positions 2..n of 2.2.3) whose input is among the newest `history` (ruling 7)."""
    validated_users: int
    """Users with a validation item: all under leave-one-out."""
    tested_users: int
    """Users with a test item."""
    repeat_share: float
    """Share of the tested users who had their test item before (ruling 13)."""


def summarise(data: SequenceData, history: int) -> DataSummary:
    """Summarise `data`; `history` is the number of newest items that the backbone would read."""
    lengths = np.diff(data.offsets)
    targets = np.maximum(data.training_lengths - 1, 0)
    _, trained = data.training_pairs()
    tested = data.users_with("test")
    quantiles = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    return DataSummary(
        users=data.num_users,
        items=data.num_items,
        interactions=len(data.items),
        training_interactions=len(trained),
        items_without_training=data.num_items - len(np.unique(trained)),
        length_quantiles={f"{at:.0%}": int(length) for at, length in zip(QUANTILES, quantiles, strict=True)},
        history=history,
        targets_kept=float(np.minimum(targets, history).sum() / max(1, targets.sum())),
        validated_users=len(data.users_with("validation")),
        tested_users=len(tested),
        repeat_share=float(repeats(data, tested, "test").mean()) if len(tested) else 0.0,
    )
