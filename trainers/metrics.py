"""MRR without cut-off, NDCG@10 and Recall@10 (paper, 3.1.2), as expected values under random tie breaking.

A target with g items above it and t level with it, itself included, has a rank that is uniform over g+1 .. g+t.
Each metric is the mean of its gain over those ranks, so a scorer that ties everything gets what a random one gets
on average (ruling 14). There is one relevant item, so the ideal DCG is 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.ranks import Setting, UserRanks

CUTOFF = 10
METRICS = ("mrr", "ndcg_at_10", "recall_at_10")


@dataclass(frozen=True)
class RankingMetrics:
    """Means over users and their standard errors (sample deviation / sqrt(users); NaN for a single user)."""

    mrr: float
    ndcg_at_10: float
    recall_at_10: float
    mrr_error: float
    ndcg_at_10_error: float
    recall_at_10_error: float
    users: int

    def named(self, setting: Setting) -> dict[str, float]:
        """With the names that databases and MLflow hold: `test_mrr`, `test_unseen_mrr`, ..."""
        return {f"{setting.prefix}_{name}": float(value) for name, value in asdict(self).items()}


def per_user(ranks: UserRanks) -> dict[str, NDArray[np.float64]]:
    """Metric name of `METRICS` -> its value for every user [N]."""
    return expected_gains(ranks.greater, ranks.ties)


def expected_gains(greater: NDArray[np.int64], ties: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Metric name -> expected value [N] for targets with `greater` [N] items above and `ties` [N] level."""
    positions = np.arange(1, int((greater + ties).max(initial=0)) + 1)
    top = positions <= CUTOFF
    gains = {"mrr": 1 / positions, "ndcg_at_10": top / np.log2(positions + 1), "recall_at_10": top.astype(np.float64)}
    expected = {}
    for name, gain in gains.items():
        up_to = np.concatenate([[0.0], np.cumsum(gain)])
        expected[name] = (up_to[greater + ties] - up_to[greater]) / ties
    return expected


def summarise(ranks: UserRanks) -> RankingMetrics:
    """Means over all users.

    Raises:
        ValueError: no users.
    """
    users = len(ranks)
    if not users:
        raise ValueError("no users to average over")
    values = per_user(ranks)
    means = {name: float(value.mean()) for name, value in values.items()}
    errors = {
        f"{name}_error": float(value.std(ddof=1) / np.sqrt(users)) if users > 1 else float("nan")
        for name, value in values.items()
    }
    return RankingMetrics(**means, **errors, users=users)
