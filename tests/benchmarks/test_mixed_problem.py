"""The function over placements and settings."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.mixed_problem import SETTINGS, random_levels, space
from benchmarks.problems import CENTRE, LAYER_NOISE, SPREAD, Evaluations, Family, instance


def test_its_centre_spread_and_noise_are_those_of_an_mrr() -> None:
    problem = instance(Family.MIXED, seed=7)
    levels = random_levels(np.random.default_rng(1), 8000)
    values = [problem.value(one) for one in levels]
    assert np.mean(values) == pytest.approx(CENTRE, abs=SPREAD / 10)
    assert np.std(values) == pytest.approx(SPREAD, rel=0.1)
    rng = np.random.default_rng(2)
    noise = [problem.observe(levels[0], rng) - values[0] for _ in range(2000)]
    assert np.mean(noise) == pytest.approx(0, abs=LAYER_NOISE / 10)
    assert np.std(noise) == pytest.approx(LAYER_NOISE, rel=0.1)


def test_every_parameter_counts_and_each_seed_is_another_function() -> None:
    problem, other = instance(Family.MIXED, seed=7), instance(Family.MIXED, seed=8)
    names = [one.name for one in space().mixed.parameters]
    assert names[-len(SETTINGS) :] == sorted(SETTINGS)
    rng = np.random.default_rng(3)
    for column in range(len(names)):
        effects = []
        for one, drawn in zip(random_levels(rng, 50), random_levels(rng, 50), strict=True):
            moved = (*one[:column], drawn[column], *one[column + 1 :])
            effects.append(abs(problem.value(moved) - problem.value(one)))
        assert max(effects) > SPREAD / 20, names[column]
    [levels] = random_levels(rng, 1)
    assert problem.value(levels) != other.value(levels)
    assert problem.value(levels) == instance(Family.MIXED, seed=7).value(levels)


def test_an_evaluation_is_the_same_for_whoever_asks() -> None:
    first, second = (Evaluations(instance(Family.MIXED, 5), 5) for _ in range(2))
    one, other = random_levels(np.random.default_rng(4), 2)
    seen = [first.observe(one), first.observe(one), first.observe(other)]
    assert [second.observe(other), second.observe(one), second.observe(one)] == [seen[2], seen[0], seen[1]]
    assert len(set(seen)) == 3
