"""Points of a mixed space as distributions over its discrete parameters: the reparameterizations of the PR paper.

Daulton et al., Bayesian Optimization over Discrete and Mixed Spaces via Probabilistic Reparameterization (NeurIPS
2022), section 4 and appendix A. With temperature tau, and phi the coordinates that are optimised:

    ordinal, k levels    Z = floor(phi) + B,  B ~ Bernoulli(sigmoid((phi - floor(phi) - 1/2) / tau)),  phi in [0, k - 1]
    nominal, c values    Z ~ Categorical(softmax((phi - 1/2) / tau)),  phi in [0, 1]^c
    continuous           Z = phi in [0, 1]

A bit is an ordinal parameter with two levels. At phi = 0 or 1 it is certain up to sigmoid(-1 / (2 tau)), .7 % at
tau = .1. Both discrete kinds have d log p(z | phi) / d phi = (draw - probability) / tau.

Shapes: R restarts, S samples, D parameters, P coordinates (one a parameter, c for a nominal one), K discrete
parameters. A point [D] holds a level of each discrete parameter, from 0, and a number in [0, 1] for each other one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import torch
from torch import Tensor

from mixrec_automl.search.kernels import Columns


class Kind(Enum):
    """Of a parameter."""

    ORDINAL = auto()
    NOMINAL = auto()
    CONTINUOUS = auto()


@dataclass(frozen=True)
class Factor:
    """One parameter."""

    kind: Kind
    levels: int = 0
    """k or c; none of a continuous one"""
    steps: int = 0
    """Of a continuous one that is rounded: the equal steps that its values divide [0, 1] into; 0: it has any value"""

    def __post_init__(self) -> None:
        if self.steps and self.kind is not Kind.CONTINUOUS:
            raise ValueError(f"a discrete parameter has levels and no steps: {self}")
        if (self.kind is Kind.CONTINUOUS) != (self.levels == 0) or self.levels == 1:
            raise ValueError(f"a discrete parameter has two levels or more, a continuous one none: {self}")

    @property
    def coordinates(self) -> int:
        return self.levels if self.kind is Kind.NOMINAL else 1

    @property
    def highest(self) -> float:
        """Upper end of its coordinates."""
        return float(self.levels - 1) if self.kind is Kind.ORDINAL else 1.0


BIT = Factor(Kind.ORDINAL, 2)


@dataclass(frozen=True)
class FactorCondition:
    """The parameter of `column` counts only where that of `parent`, a discrete one, is at one of `levels`."""

    column: int
    parent: int
    levels: tuple[float, ...]


Index = slice | list[int]


def _index(places: list[int]) -> Index:
    """A slice where `places` follow each other: tensors are then not copied, at every step of an ascent."""
    is_run = bool(places) and places == list(range(places[0], places[-1] + 1))
    return slice(places[0], places[-1] + 1) if is_run else places


@dataclass(frozen=True)
class Relaxation:
    """The parameters of a space, in the order of a point's columns."""

    factors: tuple[Factor, ...]
    conditions: tuple[FactorCondition, ...] = ()

    def __post_init__(self) -> None:
        if any(self.factors[own.parent].kind is Kind.CONTINUOUS for own in self.conditions):
            raise ValueError("what decides whether a parameter counts must be discrete")

    @classmethod
    def of_bits(cls, bits: int) -> Relaxation:
        return cls((BIT,) * bits)

    @property
    def size(self) -> float:
        """Number of points, also of those that are not canonical; infinite where a parameter has any value."""
        counts = [factor.levels or (factor.steps + 1 if factor.steps else math.inf) for factor in self.factors]
        return float(math.prod(counts))

    @cached_property
    def has_continuous(self) -> bool:
        return any(factor.kind is Kind.CONTINUOUS for factor in self.factors)

    @cached_property
    def highest(self) -> Tensor:
        """Upper end of each coordinate, [P]."""
        return torch.tensor([f.highest for f in self.factors for _ in range(f.coordinates)], dtype=torch.float64)

    def _places(self, kind: Kind) -> list[tuple[int, slice]]:
        """The column of each parameter of `kind` in a point, and where its coordinates are."""
        found, first = [], 0
        for column, factor in enumerate(self.factors):
            if factor.kind is kind:
                found.append((column, slice(first, first + factor.coordinates)))
            first += factor.coordinates
        return found

    def _single(self, kind: Kind) -> tuple[Index, Index]:
        """The same of a kind with one coordinate each: columns, and coordinates."""
        places = self._places(kind)
        return _index([column for column, _ in places]), _index([own.start for _, own in places])

    @cached_property
    def _ordinal(self) -> tuple[Index, Index]:
        return self._single(Kind.ORDINAL)

    @cached_property
    def _discrete(self) -> list[int]:
        return [column for column, factor in enumerate(self.factors) if factor.kind is not Kind.CONTINUOUS]

    @cached_property
    def _ordinal_draws(self) -> Index:
        """Which of the discrete parameters are ordinal."""
        kinds = [self.factors[column].kind for column in self._discrete]
        return _index([place for place, kind in enumerate(kinds) if kind is Kind.ORDINAL])

    @cached_property
    def _continuous(self) -> tuple[Index, Index]:
        return self._single(Kind.CONTINUOUS)

    @cached_property
    def _nominal(self) -> list[tuple[int, slice]]:
        return self._places(Kind.NOMINAL)

    @cached_property
    def _highest_floor(self) -> Tensor:
        return self.highest[self._ordinal[1]] - 1

    def _floor(self, phi: Tensor) -> Tensor:
        """The lower of the two levels that an ordinal parameter can take at phi [..., ordinal coordinates]."""
        return phi.detach().floor().clamp_min(0).minimum(self._highest_floor)

    def upper(self, phi: Tensor, temperature: float) -> Tensor:
        """Probability that an ordinal parameter takes the upper of its two levels, [R, ordinal]; of a bit: theta."""
        own = phi[:, self._ordinal[1]]
        return torch.sigmoid((own - self._floor(own) - 0.5) / temperature)

    def probabilities(self, phi: Tensor, temperature: float) -> list[Tensor]:
        """Of every level of each discrete parameter, each [R, levels], in the order of the columns; differentiable."""
        table: dict[int, Tensor] = {}
        upper, floors = self.upper(phi, temperature), self._floor(phi[:, self._ordinal[1]]).long()
        for place, (column, _) in enumerate(self._places(Kind.ORDINAL)):
            levels, one = torch.arange(self.factors[column].levels), upper[:, place, None]
            lower = floors[:, place, None]
            table[column] = (levels == lower) * (1 - one) + (levels == lower + 1) * one
        for column, own in self._nominal:
            table[column] = torch.softmax((phi[:, own] - 0.5) / temperature, dim=1)
        return [table[column] for column in sorted(table)]

    def sample(
        self, phi: Tensor, samples: int, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Points c(z), canonical, of z ~ p(Z | phi), and the score of each draw.

        Returns:
            Points [R, S, D], whose continuous columns are phi's own and keep its gradient, and
            d log p(z | phi) / d phi [R, S, P], zero for continuous coordinates.
        """
        restarts = len(phi)
        uniform = torch.rand(restarts, samples, len(self._discrete), generator=generator, dtype=torch.float64)
        points = torch.zeros(restarts, samples, len(self.factors), dtype=torch.float64)
        score = torch.zeros(restarts, samples, phi.shape[1], dtype=torch.float64)
        columns, coordinates = self._ordinal
        if columns:
            one = self.upper(phi.detach(), temperature)[:, None, :]
            draw = (uniform[..., self._ordinal_draws] < one).to(torch.float64)
            points[..., columns] = self._floor(phi[:, coordinates])[:, None, :] + draw
            score[..., coordinates] = (draw - one) / temperature
        for column, own in self._nominal:
            chances = torch.softmax((phi.detach()[:, own] - 0.5) / temperature, dim=1)
            edges = chances.cumsum(dim=1)[:, None, :-1]
            level = (uniform[..., self._discrete.index(column), None] >= edges).sum(dim=-1)
            points[..., column] = level.to(torch.float64)
            one_hot = torch.nn.functional.one_hot(level, self.factors[column].levels)
            score[..., own] = (one_hot - chances[:, None, :]) / temperature
        columns, coordinates = self._continuous
        if columns:
            points[..., columns] = phi[:, None, coordinates].expand(-1, samples, -1)
        return self.canonical(points), score

    def uniform(self, count: int, generator: torch.Generator) -> Tensor:
        """Canonical points [count, D] of independent parameters, each even over its values."""
        unit = torch.rand(count, len(self.factors), generator=generator, dtype=torch.float64)
        levels = torch.tensor([factor.levels for factor in self.factors], dtype=torch.float64)
        return self.canonical(torch.where(levels > 0, (unit * levels).floor(), unit))

    def canonical(self, points: Tensor) -> Tensor:
        """`points` [..., D] with every parameter that does not count at 0; differentiable in the others.

        An acquisition function of canonical points is one of all points, alpha(c(z)). The score function estimates the
        gradient of its expectation as that of any other, so PR needs nothing more for such parameters.
        """
        if not self.conditions:
            return points
        idle = torch.zeros(points.shape, dtype=torch.bool)
        for parent, levels, columns in self._idle_columns:
            idle[..., columns] |= ~torch.isin(points[..., parent].detach(), levels)[..., None]
        return points.masked_fill(idle, 0.0)

    def rounded(self, points: Tensor) -> Tensor:
        """`points` [..., D] with every continuous parameter that has steps at the nearest of them."""
        columns = [column for column, factor in enumerate(self.factors) if factor.steps]
        if not columns:
            return points
        steps = torch.tensor([self.factors[column].steps for column in columns], dtype=torch.float64)
        found = points.clone()
        found[..., columns] = (points[..., columns] * steps).round() / steps
        return found

    @cached_property
    def _idle_columns(self) -> list[tuple[int, Tensor, list[int]]]:
        """The conditions, those of one parent and its same levels together."""
        columns: dict[tuple[int, tuple[float, ...]], list[int]] = {}
        for own in self.conditions:
            columns.setdefault((own.parent, own.levels), []).append(own.column)
        return [(parent, torch.tensor(levels).double(), those) for (parent, levels), those in columns.items()]

    @property
    def columns(self) -> Columns:
        """Those of `features`."""
        nominal = tuple(factor.levels for factor in self.factors if factor.kind is Kind.NOMINAL)
        bits = self.factors.count(BIT)
        return Columns(bits, nominal, len(self.factors) - bits - len(nominal))

    def features(self, points: Tensor) -> Tensor:
        """What a Gaussian process reads of `points` [..., D]: bits, then each nominal parameter as one of c columns, so
        that two values are one apart, then all others in [0, 1]; differentiable in the continuous ones.

        Bits alone are features as they are.
        """
        if all(factor == BIT for factor in self.factors):
            return points
        bits, nominal, numeric = [], [], []
        for column, factor in enumerate(self.factors):
            own = points[..., column, None]
            if factor == BIT:
                bits.append(own)
            elif factor.kind is Kind.NOMINAL:
                one_hot = torch.nn.functional.one_hot(own.detach().long().squeeze(-1), factor.levels)
                nominal.append(one_hot.to(points.dtype) / math.sqrt(2))
            else:
                numeric.append(own / factor.highest)
        return torch.cat([*bits, *nominal, *numeric], dim=-1)

    def points(self, features: Tensor) -> Tensor:
        """Inverse of `features`, [..., n] -> [..., D]."""
        columns = self.columns
        bits, nominal, number = 0, columns.bits, columns.bits + sum(columns.nominal)
        found = []
        for factor in self.factors:
            if factor == BIT:
                found.append(features[..., bits, None])
                bits += 1
            elif factor.kind is Kind.NOMINAL:
                one_hot = features[..., nominal : nominal + factor.levels]
                found.append(one_hot.argmax(dim=-1, keepdim=True).to(features.dtype))
                nominal += factor.levels
            else:
                found.append(features[..., number, None] * factor.highest)
                number += 1
        return torch.cat(found, dim=-1)

    def near(self, points: Tensor, temperature: float) -> Tensor:
        """phi [any, P] whose distributions favour `points` [any, D], without being certain of them."""
        certainty = min(1.0, 5 * temperature)  # of a bit: theta = .08 or .92
        phi = torch.full((len(points), len(self.highest)), 0.5, dtype=torch.float64)
        columns, coordinates = self._ordinal
        own = points[:, columns]
        middle = self._floor(own) + 0.5
        phi[:, coordinates] = middle + (own - middle) * certainty
        for column, slot in self._nominal:
            one_hot = torch.nn.functional.one_hot(points[:, column].long(), self.factors[column].levels)
            phi[:, slot] = 0.5 + (one_hot - 0.5) * certainty
        columns, coordinates = self._continuous
        phi[:, coordinates] = points[:, columns]
        return phi

    def neighbours(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Each of `points` [any, D] with one of its parameters, drawn at random, set to another value, drawn too."""
        moved = points.clone()
        which = torch.randint(len(self.factors), (len(points),), generator=generator)
        for row, column in enumerate(which.tolist()):
            factor = self.factors[column]
            if factor.kind is Kind.CONTINUOUS:
                moved[row, column] = torch.rand((), generator=generator, dtype=torch.float64)
            else:
                step = 1 if factor.levels == 2 else int(torch.randint(1, factor.levels, (), generator=generator))
                moved[row, column] = (moved[row, column] + step) % factor.levels
        return moved


def all_points(levels: Sequence[int]) -> Tensor:
    """Every point of a discrete space, [product, K] in counting order, the first parameter the most significant."""
    return torch.cartesian_prod(*(torch.arange(count, dtype=torch.float64) for count in levels)).reshape(
        -1, len(levels)
    )


def exact_expectation(probabilities: Sequence[Tensor], values: Tensor) -> Tensor:
    """E[alpha(Z)] over all points of a discrete space, differentiable in the probabilities.

    Args:
        probabilities: of each parameter's levels, each [R, levels].
        values: alpha of every point in the order of `all_points`.

    Returns:
        [R]; computed parameter by parameter, so that about as many products as points suffice for each restart.
    """
    folded = values.expand(len(probabilities[0]), -1)
    for chances in probabilities:
        folded = torch.einsum("rk,rkm->rm", chances, folded.reshape(*chances.shape, -1))
    return folded[:, 0]
