"""Groups of users for whom a recommender may do better or worse: what an average over all hides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trainers.ranks import UserRanks

SHORT, LONG = 4, 10
"""Histories of at most, and of at least, so many interactions."""
HEAD = 0.2
"""Share of the users, those with the most popular targets, that are the head."""


def slices(ranks: UserRanks) -> Mapping[str, NDArray[np.bool_]]:
    """Name -> which users [N] belong to it. Slices of one kind do not overlap; cold targets are tail targets too."""
    lengths, popularity = ranks.history_length, ranks.popularity
    bar = np.quantile(popularity, 1 - HEAD) if len(ranks) else 0
    is_head = (popularity >= bar) & (popularity > 0)
    return {
        f"history up to {SHORT}": lengths <= SHORT,
        f"history {SHORT + 1} to {LONG - 1}": (lengths > SHORT) & (lengths < LONG),
        f"history from {LONG}": lengths >= LONG,
        "popular target": is_head,
        "tail target": ~is_head,
        "cold target": ranks.cold,
        "repeat": ranks.repeat,
        "no repeat": ~ranks.repeat,
    }
