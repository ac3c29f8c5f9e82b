"""What a prepared data set looks like, for `data show` and the log of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers.data.sequence_data import HELD_OUT, SequenceData

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
    repeat_share: float
    """Share of users whose test item they had before (ruling 13)."""


def summarise(data: SequenceData, history: int) -> DataSummary:
    """Summarise `data`; `history` is the number of newest items that the backbone would read."""
    lengths = np.diff(data.offsets)
    targets = lengths - HELD_OUT - 1
    _, trained = data.training_pairs()
    last = data.items[data.offsets[1:] - 1]
    owner = np.repeat(np.arange(data.num_users), lengths)
    is_last = np.zeros(len(data.items), dtype=np.bool_)
    is_last[data.offsets[1:] - 1] = True
    repeats = np.unique(owner[(data.items == last[owner]) & ~is_last])
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
        repeat_share=len(repeats) / data.num_users,
    )
