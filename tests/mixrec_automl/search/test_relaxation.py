"""PR over mixed spaces: expectations, gradients and proposals against literal sums and enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mixrec_automl.search.probabilistic_reparameterization import Ascent, propose_point, score_function_gradient
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.relaxation import (
    BIT,
    Factor,
    FactorCondition,
    Kind,
    Relaxation,
    all_points,
    exact_expectation,
)

NOMINAL, ORDINAL, REAL = Factor(Kind.NOMINAL, 3), Factor(Kind.ORDINAL, 5), Factor(Kind.CONTINUOUS)
DISCRETE = Relaxation((BIT, NOMINAL, ORDINAL, BIT))
MIXED = Relaxation((BIT, REAL, NOMINAL, ORDINAL, REAL))
TAU = 0.25
MONTE_CARLO = Ascent(exact_points=0)
NONE = torch.empty(0, 4, dtype=torch.float64)


def random_phi(relaxation: Relaxation, restarts: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(restarts, len(relaxation.highest), generator=generator, dtype=torch.float64) * relaxation.highest


def literal_probabilities(phi: list[float]) -> list[list[float]]:
    """Of the levels of the parameters of `DISCRETE`, from the paper's formulas."""

    def ordinal(value: float, levels: int) -> list[float]:
        floor = min(int(value), levels - 2)
        upper = 1 / (1 + math.exp(-(value - floor - 0.5) / TAU))
        return [1 - upper if level == floor else upper if level == floor + 1 else 0.0 for level in range(levels)]

    weights = [math.exp((value - 0.5) / TAU) for value in phi[1:4]]
    return [ordinal(phi[0], 2), [w / sum(weights) for w in weights], ordinal(phi[4], 5), ordinal(phi[5], 2)]


def test_the_expectation_is_the_literal_sum_over_all_points() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = all_points([factor.levels for factor in DISCRETE.factors])
    assert len(points) == DISCRETE.size == 60
    phi = random_phi(DISCRETE, 6, seed=1)
    phi[0], phi[1] = 0.0, DISCRETE.highest  # the vertices
    got = exact_expectation(DISCRETE.probabilities(phi, TAU), values)
    for row, found in zip(phi.tolist(), got.tolist(), strict=True):
        table = literal_probabilities(row)
        literal = sum(
            float(value) * math.prod(chances[int(level)] for chances, level in zip(table, point, strict=True))
            for value, point in zip(values, points.tolist(), strict=True)
        )
        assert found == pytest.approx(literal, rel=1e-12, abs=1e-14)


def test_samples_come_as_often_as_their_probability_says() -> None:
    phi = random_phi(DISCRETE, 1, seed=2)
    drawn, _ = DISCRETE.sample(phi, 40_000, TAU, torch.Generator().manual_seed(3))
    for column, chances in enumerate(literal_probabilities(phi[0].tolist())):
        for level, chance in enumerate(chances):
            share = float((drawn[0, :, column] == level).double().mean())
            assert share == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / 40_000) + 1e-12)


def test_the_score_function_gradient_agrees_with_the_exact_one() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 3
    phi, estimates = random_phi(DISCRETE, 1, seed=5), 20_000
    leaf = phi.clone().requires_grad_()
    exact = torch.autograd.grad(exact_expectation(DISCRETE.probabilities(leaf, TAU), values).sum(), leaf)[0][0]
    drawn, score = DISCRETE.sample(phi.expand(estimates, -1), 8, TAU, torch.Generator().manual_seed(6))
    index = drawn @ torch.tensor([30.0, 10.0, 2.0, 1.0], dtype=torch.float64)
    gradients = score_function_gradient(score, values[index.long()])
    error = gradients.std(dim=0) / math.sqrt(estimates)
    assert ((gradients.mean(dim=0) - exact).abs() < 4 * error).all()
    assert (exact.abs() > 10 * error).sum() >= 3, "the interval is too wide to tell"


def test_good_points_are_favoured_where_the_ascent_begins() -> None:
    generator = torch.Generator().manual_seed(7)
    points = torch.stack(
        [
            torch.tensor([1.0, 0.3, 2.0, 4.0, 0.9], dtype=torch.float64),
            torch.tensor([0.0, 0.7, 0.0, 0.0, 0.1], dtype=torch.float64),
            torch.tensor([0.0, 0.5, 1.0, 2.0, 0.4], dtype=torch.float64),
        ]
    )
    drawn, _ = MIXED.sample(MIXED.near(points, 0.1), 4000, 0.1, generator)
    for point, own in zip(points, drawn, strict=True):
        assert (own == point).double().mean(dim=0).min() > 0.85
        assert torch.equal(own[:, 1], point[1].expand(4000)), "a continuous parameter is what it is"
    moved = MIXED.neighbours(points.repeat(200, 1), generator)
    assert ((moved != points.repeat(200, 1)).sum(dim=1) == 1).all()
    assert (moved[:, [0, 2, 3]] < torch.tensor([2, 3, 5])).all()


def rugged(points: Tensor) -> Tensor:
    """Over `MIXED`: which of its 30 discrete points is best hangs on two numbers, and the other way round."""
    bit, first, nominal, ordinal, second = points.unbind(dim=-1)
    place = torch.tensor([0.2, 0.8, 0.5], dtype=torch.float64)[nominal.long()]
    gain = torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64)[nominal.long()]
    return gain - 4 * (first - place) ** 2 - (second - ordinal / 4) ** 2 - 0.3 * (ordinal - 3) ** 2 + 0.2 * bit * second


@pytest.mark.parametrize("seed", range(5))
def test_discrete_and_continuous_parameters_reach_the_optimum_together(seed: int) -> None:
    point, value = propose_point(rugged, MIXED, [], torch.empty(0, 5), Ascent(), seed)
    # By hand: nominal 1, first .8, ordinal 3, bit 1: then -(second - .75)^2 + .2 second is best at .85.
    assert point[[0, 2, 3]].tolist() == [1.0, 1.0, 3.0]
    assert value == pytest.approx(1 - 0.01 + 0.17, abs=0.01)
    assert float(point[1]) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("ascent", [Ascent(), MONTE_CARLO], ids=["exact", "Monte Carlo"])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_a_discrete_space_is_found_and_then_the_next(ascent: Ascent, seed: int) -> None:
    """A random function of all 60 points, smooth enough to have a way up."""
    generator = torch.Generator().manual_seed(seed)
    effects = [torch.randn(factor.levels, generator=generator, dtype=torch.float64) for factor in DISCRETE.factors]

    def additive(points: Tensor) -> Tensor:
        return torch.stack([own[points[:, place].long()] for place, own in enumerate(effects)]).sum(dim=0)

    ranked = additive(all_points([2, 3, 5, 2])).sort(descending=True).values
    seen: list[Tensor] = []
    for place in range(3):
        point, value = propose_point(additive, DISCRETE, seen, NONE, ascent, seed)
        assert value == pytest.approx(float(ranked[place]), rel=1e-12)
        seen.append(point)


@pytest.mark.parametrize("ascent", [Ascent(), MONTE_CARLO], ids=["exact", "Monte Carlo"])
def test_constraints_hold_and_may_leave_nothing(ascent: Ascent) -> None:
    def total(points: Tensor) -> Tensor:
        return points.sum(dim=-1)

    def even(points: Tensor) -> Tensor:
        return points.sum(dim=-1) % 2 == 0

    small = Ascent(ascent.exact_points, restarts=12, steps=10, samples=4)
    seen: list[Tensor] = []
    best = propose_point(total, DISCRETE, [], NONE, ascent, 0, even)
    assert best[1] == 8.0, "all of it is 8"
    for call in range(30):
        point, _ = propose_point(total, DISCRETE, seen, NONE, small, call, even)
        assert bool(even(point[None]))
        seen.append(point)
    allowed = {point for point in itertools.product(range(2), range(3), range(5), range(2)) if sum(point) % 2 == 0}
    assert {tuple(int(level) for level in point) for point in seen} == allowed
    with pytest.raises(SpaceExhausted, match="constraints"):
        propose_point(total, DISCRETE, seen, NONE, small, 0, even)


def test_the_last_point_of_many_levels_is_found() -> None:
    """No temperature takes an ordinal parameter further than to its next level."""
    relaxation = Relaxation((Factor(Kind.ORDINAL, 17),) * 3)
    every = all_points([17] * 3)
    small = Ascent(exact_points=0, steps=2)
    for call in range(4):
        left = every[1000 * call + 137]
        seen = every[(every != left).any(dim=1)]
        point, _ = propose_point(lambda points: points.sum(dim=-1), relaxation, seen, NONE, small, call)
        assert point.tolist() == left.tolist()


def test_the_gradient_does_not_hang_on_what_the_constraints_forbid() -> None:
    """Values a hundred higher where nothing may be proposed leave the ascent the slope that it has elsewhere."""
    relaxation, ascent = Relaxation.of_bits(30), Ascent(restarts=24)
    weights = torch.linspace(0.5, 1.5, 30, dtype=torch.float64)

    def forbidden_is_better(points: Tensor) -> Tensor:
        return points @ weights + 100 * points[:, 0]

    point, _ = propose_point(forbidden_is_better, relaxation, [], NONE, ascent, 0, lambda points: points[:, 0] == 0)
    assert point.tolist() == [0.0] + [1.0] * 29


CONDITIONS = (FactorCondition(0, 1, (0, 2)), FactorCondition(2, 1, (2,)), FactorCondition(2, 3, (1,)))
CONDITIONAL = Relaxation(DISCRETE.factors, CONDITIONS)
"""The first bit counts at two values of the nominal parameter, the ordinal one at one of those beside a last bit 1."""


def literal_canonical(point: tuple[int, ...]) -> tuple[int, ...]:
    first, nominal, ordinal, last = point
    return (first if nominal != 1 else 0, nominal, ordinal if (nominal, last) == (2, 1) else 0, last)


def test_what_does_not_count_is_zero() -> None:
    points = all_points([2, 3, 5, 2])
    found = [tuple(map(int, row)) for row in CONDITIONAL.canonical(points).tolist()]
    assert found == [literal_canonical(tuple(map(int, row))) for row in points.tolist()]
    assert torch.equal(DISCRETE.canonical(points), points)


def test_the_gradient_of_an_expectation_over_canonical_points_is_unbiased() -> None:
    """The exact one folds alpha(c(z)) over all z."""
    points = all_points([2, 3, 5, 2])
    index = torch.tensor([30.0, 10.0, 2.0, 1.0], dtype=torch.float64)
    table = torch.randn(60, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 3
    values = table[(CONDITIONAL.canonical(points) @ index).long()]
    phi, estimates = random_phi(CONDITIONAL, 1, seed=5), 20_000
    leaf = phi.clone().requires_grad_()
    exact = torch.autograd.grad(exact_expectation(CONDITIONAL.probabilities(leaf, TAU), values).sum(), leaf)[0][0]
    drawn, score = CONDITIONAL.sample(phi.expand(estimates, -1), 8, TAU, torch.Generator().manual_seed(6))
    gradients = score_function_gradient(score, table[(drawn @ index).long()])
    error = gradients.std(dim=0) / math.sqrt(estimates)
    assert ((gradients.mean(dim=0) - exact).abs() < 4 * error).all()
    assert (exact.abs() > 10 * error).sum() >= 3, "the interval is too wide to tell"


@pytest.mark.parametrize("ascent", [Ascent(), MONTE_CARLO], ids=["exact", "Monte Carlo"])
def test_every_canonical_point_is_proposed_once(ascent: Ascent) -> None:
    small = Ascent(ascent.exact_points, restarts=12, steps=10, samples=4)
    wanted = {literal_canonical(point) for point in itertools.product(range(2), range(3), range(5), range(2))}
    seen: list[Tensor] = []
    for call in range(len(wanted)):
        seen.append(propose_point(lambda points: points.sum(dim=-1), CONDITIONAL, seen, NONE, small, call)[0])
    assert {tuple(map(int, point)) for point in seen} == wanted
    with pytest.raises(SpaceExhausted):
        propose_point(lambda points: points.sum(dim=-1), CONDITIONAL, seen, NONE, small, 0)


def test_a_continuous_parameter_may_count_or_not_and_decides_nothing() -> None:
    relaxation = Relaxation((BIT, REAL), (FactorCondition(1, 0, (1,)),))
    phi = torch.tensor([[0.5, 0.3]], dtype=torch.float64, requires_grad=True)
    drawn, _ = relaxation.sample(phi, 50, TAU, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[..., 1] > 0, drawn[..., 0] == 1)
    (gradient,) = torch.autograd.grad(drawn[..., 1].sum(), phi)
    assert gradient[0, 1] == (drawn[..., 0] == 1).sum()
    with pytest.raises(ValueError, match="must be discrete"):
        Relaxation((BIT, REAL), (FactorCondition(0, 1, (0.5,)),))


def test_a_parameter_has_at_least_two_values() -> None:
    for kind, levels in ((Kind.ORDINAL, 1), (Kind.NOMINAL, 0), (Kind.CONTINUOUS, 3)):
        with pytest.raises(ValueError, match="two levels or more"):
            Factor(kind, levels)
