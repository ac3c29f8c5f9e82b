"""Is one model better than another on the same users? Paired interval, permutation test, t-test, Holm.

All three look at the per-user differences of a metric. The paper tests with a paired t-test over users (3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainers.metrics import per_user
from trainers.ranks import UserRanks, check_comparable

RESAMPLES = 10_000
VALUES_AT_ONCE = 1 << 22
"""Draws held in memory at a time (32 MB)."""


@dataclass(frozen=True)
class PairedDifference:
    """Mean over users of `left - right` for one metric."""

    mean: float
    low: float
    high: float
    """`low` and `high`: 95 % percentile bootstrap over users."""
    permutation_p: float
    t_test_p: float
    """Both two-sided."""
    users: int


def compare(left: UserRanks, right: UserRanks, *, seed: int) -> dict[str, PairedDifference]:
    """Metric name -> difference `left - right`.

    Raises:
        UserError: the two are of different data, users, targets or settings.
    """
    check_comparable(left, right)
    ours, theirs = per_user(left), per_user(right)
    found = paired_differences(np.stack([ours[name] - theirs[name] for name in ours], axis=1), seed=seed)
    return dict(zip(ours, found, strict=True))


def paired_difference(left: NDArray[np.float64], right: NDArray[np.float64], *, seed: int) -> PairedDifference:
    """Compare values [U] of the same users.

    Raises:
        ValueError: different numbers of users, fewer than two, or values that are not finite.
    """
    if left.shape != right.shape or left.ndim != 1 or len(left) < 2:
        raise ValueError(f"expected one value of each of at least two users, got {left.shape} and {right.shape}")
    (found,) = paired_differences((left - right)[:, None], seed=seed)
    return found


def paired_differences(differences: NDArray[np.float64], *, seed: int) -> tuple[PairedDifference, ...]:
    """Compare M pairs of models or metrics on the same users, from their differences [U, M].

    All columns share their draws: each is what it would be alone, and a table of them takes as long as one.

    Raises:
        ValueError: fewer than two users, or values that are not finite.
    """
    if len(differences) < 2:
        raise ValueError(f"expected at least two users, got {len(differences)}")
    if not np.isfinite(differences).all():
        raise ValueError("values that are not finite cannot be compared")
    intervals = bootstrap_intervals(differences, seed=seed)
    permutation = permutation_ps(differences, seed=seed)
    return tuple(
        PairedDifference(
            mean=float(column.mean()),
            low=float(low),
            high=float(high),
            permutation_p=float(p),
            t_test_p=t_test_p(column),
            users=len(column),
        )
        for column, (low, high), p in zip(differences.T, intervals, permutation, strict=True)
    )


def bootstrap_intervals(
    differences: NDArray[np.float64], *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """[M, 2] percentile interval of the mean of each column of [U, M], users drawn with replacement."""
    generator = np.random.default_rng(seed)
    users = len(differences)
    means = []
    for rows in _rows(resamples, users):
        drawn = generator.integers(users, size=(rows, users)) + users * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        means.append(times.astype(np.float64) @ differences / users)
    bounds = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    intervals: NDArray[np.float64] = bounds.T
    return intervals


def permutation_ps(differences: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """[M] two-sided p of "left and right are exchangeable within a user" for each column of [U, M]: the sign of each
    difference is a coin flip.

    The observed signs count as one of the draws, so p is never zero (Phipson and Smyth, 2010).
    """
    generator = np.random.default_rng(seed)
    users, total = len(differences), differences.sum(axis=0)
    # Sums that are equal on paper may differ in their last digits.
    bar = np.abs(total) - 1e-12 * np.abs(differences).sum(axis=0)
    extreme = np.zeros(len(total), dtype=np.int64)
    for rows in _rows(resamples, users):
        flipped = generator.integers(2, size=(rows, users), dtype=np.int8).astype(np.float64)
        extreme += (np.abs(total - 2 * (flipped @ differences)) >= bar).sum(axis=0)
    return (extreme + 1) / (resamples + 1)


def t_test_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p of a paired t-test; differences that are all the same have no spread: p is 1 at zero, else 0."""
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given (Holm, 1979): reject where one is at most the family-wise level."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _rows(resamples: int, users: int) -> Iterator[int]:
    """Sizes of chunks of resamples that keep to `VALUES_AT_ONCE`."""
    step = max(1, VALUES_AT_ONCE // users)
    for first in range(0, resamples, step):
        yield min(step, resamples - first)
