"""What is told of proxies, on scores of which everything is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.supernet import GATE_LEVEL, Proxy, passing, spearman


def test_each_proxy_is_compared_with_every_seed_but_its_own() -> None:
    scores = np.zeros((2, 4, 3))
    assert Proxy("supernet", scores).pairs(2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert Proxy("peer", scores, same_seeds=True).pairs(2) == [(0, 1), (1, 0)]


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(9, size=(5, 20)).astype(float), rng.normal(size=(5, 20))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(left, right, strict=True)]
    assert spearman(left, right) == pytest.approx(expected)


def test_a_gate_lets_chance_pass_at_its_level_and_the_truth_always() -> None:
    rng = np.random.default_rng(0)
    alone = rng.normal(size=64)
    by_chance = [passing(rng.normal(size=64), alone, 16, rng) for _ in range(40)]
    assert np.mean(by_chance) == pytest.approx(GATE_LEVEL, abs=0.025)
    assert passing(alone, alone, 8, rng) == 1
    assert passing(-alone, alone, 8, rng) == 0
