"""The functions of the comparison of searches, against definitions written out, on sizes that can be enumerated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from benchmarks.problems import (
    COUPLINGS,
    EDGE_PRICE,
    Bits,
    Family,
    Purpose,
    contamination,
    damoe,
    draws,
    instance,
    ising,
    labs,
    layers,
    weighted_sat,
)

OF_BITS = [family for family in Family if family is not Family.MIXED]


def designs(bits: int) -> list[Bits]:
    return list(itertools.product((0, 1), repeat=bits))


def random_designs(bits: int, number: int, seed: int = 0) -> list[Bits]:
    return [tuple(map(int, row)) for row in np.random.default_rng(seed).integers(2, size=(number, bits))]


@pytest.mark.parametrize(("bits", "energy"), [(3, 1), (7, 3), (11, 5), (13, 6), (12, 10)])
def test_the_best_merit_factors_are_those_in_the_literature(bits: int, energy: int) -> None:
    """Barker sequences, and the optimum at 12 bits (Packebusch and Mertens, 2016, table 1)."""
    problem = labs(bits)
    assert max(problem.value(design) for design in designs(bits)) == pytest.approx(bits**2 / (2 * energy))


def test_the_merit_factor_is_of_spins_and_knows_its_symmetries() -> None:
    problem = labs(9)
    for design in random_designs(9, 20):
        spins = [2 * bit - 1 for bit in design]
        energy = sum(sum(spins[i] * spins[i + k] for i in range(9 - k)) ** 2 for k in range(1, 9))
        assert problem.value(design) == pytest.approx(81 / (2 * energy))
        for same in (design[::-1], tuple(1 - bit for bit in design)):
            assert problem.value(same) == pytest.approx(problem.value(design))


def test_a_random_design_satisfies_seven_eighths_of_the_weight() -> None:
    """Exactly so over all designs: each clause forbids one of the eight values of its three variables."""
    values = [weighted_sat(10, seed=3).value(design) for design in designs(10)]
    assert np.mean(values) == pytest.approx(7 / 8)
    assert len(set(values)) > 100
    assert max(values) <= 1


@pytest.mark.parametrize("side", [2, 3])
def test_the_divergence_of_ising_models_is_that_of_their_tables(side: int) -> None:
    """p and q as tables over all states, edges in the order rows, then columns."""
    right = [((row, column), (row, column + 1)) for row in range(side) for column in range(side - 1)]
    down = [((row, column), (row + 1, column)) for row in range(side - 1) for column in range(side)]
    edges = right + down
    generator = draws(Purpose.INSTANCE, 5, side)
    signs = 2 * generator.integers(2, size=len(edges)) - 1
    couplings = signs * generator.uniform(*COUPLINGS, size=len(edges))

    def table(kept: Bits) -> np.ndarray:
        weights = []
        for spins in itertools.product((-1, 1), repeat=side * side):
            grid = np.array(spins).reshape(side, side)
            terms = zip(kept, couplings, edges, strict=True)
            weights.append(math.exp(sum(2 * bit * j * grid[a] * grid[b] for bit, j, (a, b) in terms)))
        return np.array(weights) / sum(weights)

    problem = ising(seed=5, side=side)
    p = table((1,) * len(edges))
    for design in random_designs(len(edges), 6):
        q = table(design)
        divergence = float((p * np.log(p / q)).sum())
        assert problem.value(design) == pytest.approx(-(divergence + EDGE_PRICE * sum(design)), abs=1e-8)
    assert problem.value((1,) * len(edges)) == pytest.approx(-EDGE_PRICE * len(edges))


def test_one_stage_of_contamination_is_in_closed_form() -> None:
    """Prevention leaves (1 - c) z below the limit nearly always; without it, l (1 - z) + z is compared with it."""
    problem = contamination(seed=1, stages=1, true_scenarios=200_000)
    start, spread = np.random.default_rng(9).beta(1, 30, 10**6), np.random.default_rng(8).beta(1, 17 / 3, 10**6)
    kept = float((1 - (1 - spread) * (1 - start) < 0.1).mean())
    assert problem.value((0,)) == pytest.approx(kept - 0.95, abs=0.005)
    start, restored = np.random.default_rng(7).beta(1, 30, 10**6), np.random.default_rng(6).beta(1, 3 / 7, 10**6)
    assert problem.value((1,)) == pytest.approx(float(((1 - restored) * start < 0.1).mean()) - 0.95 - 1, abs=0.005)


def test_layers_add_up_and_have_the_spread_that_is_stated() -> None:
    problem = layers(seed=2, depth=4)
    values = np.array([problem.value(design) for design in designs(12)])
    assert values.mean() == pytest.approx(0.05)
    assert values.std() == pytest.approx(0.004)
    base = (0,) * 12

    def of_layer(place: int, bits: Bits) -> float:
        return problem.value((*base[: 3 * place], *bits, *base[3 * place + 3 :])) - problem.value(base)

    best = sum(max(of_layer(place, bits) for bits in designs(3)) for place in range(4))
    assert values.max() == pytest.approx(problem.value(base) + best), "no layer acts on another one"


def test_early_layers_matter_more() -> None:
    spreads = np.zeros(12)
    for seed in range(20):
        problem = layers(seed)
        for place in range(12):
            of_layer = [problem.value((*(0,) * 3 * place, *bits, *(0,) * (33 - 3 * place))) for bits in designs(3)]
            spreads[place] += np.var(of_layer)
    assert spreads[:4].sum() > 3 * spreads[-4:].sum()


def test_damoe_observes_single_trainings_and_is_judged_by_their_mean() -> None:
    problem = damoe()
    generator = np.random.default_rng(0)
    for design in random_designs(6, 10):
        seen = {problem.observe(design, generator) for _ in range(40)}
        assert np.mean(list(seen)) == pytest.approx(problem.value(design))
        assert len(seen) > 1


@pytest.mark.parametrize("family", OF_BITS)
def test_noise_is_as_stated_and_comes_from_the_generator_alone(family: Family) -> None:
    problem = instance(family, seed=4)
    errors = []
    for number, design in enumerate(random_designs(problem.bits, 30)):
        once, again = (problem.observe(design, draws(Purpose.NOISE, number)) for _ in range(2))
        assert once == again
        errors += [problem.observe(design, draws(Purpose.NOISE, number, k)) - problem.value(design) for k in range(10)]
    if problem.noise_sd == 0:
        assert set(errors) == {0.0}
    else:
        assert np.std(errors) == pytest.approx(problem.noise_sd, rel=0.3)
        assert abs(np.mean(errors)) < 0.25 * problem.noise_sd


@pytest.mark.parametrize("family", OF_BITS)
def test_a_mask_only_turns_the_axes(family: Family) -> None:
    """One seed, one instance; what a mask does is undone by giving it again."""
    problem = instance(family, seed=4)
    generator = np.random.default_rng(1)
    mask = tuple(map(int, generator.integers(2, size=problem.bits)))
    turned = problem.masked(mask)
    for design in random_designs(problem.bits, 5):
        there = tuple(a ^ b for a, b in zip(design, mask, strict=True))
        assert turned.value(there) == problem.value(design)
        assert turned.masked(mask).value(design) == problem.value(design)
        assert turned.observe(there, draws(Purpose.NOISE, 7)) == problem.observe(design, draws(Purpose.NOISE, 7))
    assert instance(family, seed=4).value(there) == problem.value(there)


def test_other_seeds_have_other_masks() -> None:
    zeros = (0,) * 30
    assert len({instance(Family.LABS_30, seed).value(zeros) for seed in range(10)}) > 3
