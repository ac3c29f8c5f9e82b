"""What is told of proxies, on scores of which everything is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.supernet import GATE_LEVEL, Proxy, agreement, passing


def test_each_proxy_is_compared_with_every_seed_but_its_own() -> None:
    scores = np.zeros((2, 4, 3))
    assert Proxy("supernet", scores).pairs(2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert Proxy("peer", scores, same_seeds=True).pairs(2) == [(0, 1), (1, 0)]


def test_correlations_are_means_over_the_pairs() -> None:
    alone = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    proxy = np.array([[1.0, 2.0, 4.0, 3.0]])
    # One pair of neighbours is swapped: rho = 1 - 6 * 2 / (4 * 15), tau = (5 - 1) / 6.
    assert agreement(proxy, alone, [(0, 0)]) == pytest.approx([0.8, 4 / 6])
    assert agreement(proxy, alone, [(0, 1)]) == pytest.approx([-0.8, -4 / 6])
    assert agreement(proxy, alone, [(0, 0), (0, 1)]) == pytest.approx([0, 0])


def test_a_gate_lets_chance_pass_at_its_level_and_the_truth_always() -> None:
    rng = np.random.default_rng(0)
    alone = rng.normal(size=64)
    by_chance = [passing(rng.normal(size=64), alone, 16, rng) for _ in range(40)]
    assert np.mean(by_chance) == pytest.approx(GATE_LEVEL, abs=0.025)
    assert passing(alone, alone, 8, rng) == 1
    assert passing(-alone, alone, 8, rng) == 0
