"""Bayesian optimisation over a mixed space, as a pure function of what has been observed: for others' loops, and for
searches that have settings (`mixed_proposer.py`).

The search over architectures alone goes through Ax (`ax_proposer.py`); this is the same surrogate, acquisition
function, PR and knowledge gradient without it, over any `MixedSpace`, for one setting or several at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from botorch.utils.sampling import draw_sobol_samples, manual_seed
from torch import Tensor

from mixrec_automl.search.batch import Beliefs, at_most
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.points import PointSet, keys
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.relaxation import BIT, Factor, FactorCondition, Kind, Relaxation
from mixrec_automl.search.surrogate import DesignSurrogate, fit
from mixrec_automl.search.threads import one_thread
from search_spaces.mixed import Categorical, Integer, MixedSpace, Ordinal, Setting, Value

FEWEST_OUTCOMES = 2
FEW_SOBOL, MOST_SOBOL = 2**12, 2**17
"""Quasi-random points that are looked through for a new one that the constraints allow; the more only where needed"""


@dataclass(frozen=True)
class Observed:
    """One evaluation of a setting; the higher its value the better."""

    setting: Setting
    value: float | None
    """None: it has not ended, or has failed"""
    is_pending: bool = False

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{dict(self.setting)} has the value {self.value}: give None for what has failed")


def relaxation_of(space: MixedSpace) -> Relaxation:
    """How PR sees `space`: a parameter a column of a point, which holds its level."""
    factors = []
    for own in space.parameters:
        if isinstance(own, Categorical):
            count = len(own.values)
            factors.append(BIT if count == 2 else Factor(Kind.NOMINAL, count))
        elif isinstance(own, Ordinal) or (isinstance(own, Integer) and not own.is_dense):
            factors.append(Factor(Kind.ORDINAL, own.levels))
        else:
            factors.append(Factor(Kind.CONTINUOUS, steps=own.levels - 1 if isinstance(own, Integer) else 0))
    names = [own.name for own in space.parameters]
    conditions = tuple(
        FactorCondition(names.index(one.name), parent, tuple(space.parameters[parent].level(v) for v in one.values))
        for one in space.conditions
        for parent in [names.index(one.parent)]
    )
    return Relaxation(tuple(factors), conditions)


def suggest(
    space: MixedSpace,
    history: Sequence[Observed],
    *,
    seed: int,
    initial: int = 5,
    noise_variance: float | None = None,
    ascent: Ascent | None = None,
    cost: KnownCost | None = None,
) -> dict[str, Value]:
    """The setting to evaluate next: `suggest_batch` of one."""
    [setting] = suggest_batch(
        space, history, 1, seed=seed, initial=initial, noise_variance=noise_variance, ascent=ascent, cost=cost
    )
    return setting


def suggest_batch(
    space: MixedSpace,
    history: Sequence[Observed],
    count: int,
    *,
    seed: int,
    initial: int = 5,
    noise_variance: float | None = None,
    ascent: Ascent | None = None,
    cost: KnownCost | None = None,
) -> list[dict[str, Value]]:
    """The settings to evaluate next, side by side; fewer than `count` where the space has no more.

    Quasi-random ones first, then PR on a Gaussian process; or a known setting again, where one more value of that has
    the higher knowledge gradient. They are those that as many calls of `suggest` would give with the same seed, if each
    answer were put into `history` as pending, up to rounding; but the Gaussian process is fitted once.

    Args:
        space: of the settings.
        history: all evaluations so far, in any order.
        count: of settings, at least 1.
        seed: of all random numbers; the answer hangs on it and on `history` alone.
        initial: evaluations before the surrogate takes over.
        noise_variance: of one value of a setting around its mean; where absent it is inferred with the surrogate's
            other parameters, and no setting is evaluated twice.
        ascent: options of PR.
        cost: of a setting; with it, what is looked for is not the best setting but the best one at every cost, by
            expected hypervolume improvement.

    Raises:
        ValueError: `history` holds a setting that is not of `space`, or `count` is less than 1.
        SpaceExhausted: every setting that the constraints allow has been evaluated or is pending, or none was found
            among tens of thousands that were drawn.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    evidence = Evidence(space, history, noise_variance, cost=cost)
    with manual_seed(seed), one_thread():
        found = at_most(count, evidence.points(seed, initial, ascent or Ascent()))
    return [space.setting(point.tolist()) for point in found]


@dataclass(frozen=True)
class Evidence:
    """What has been evaluated of a space, and how that is to be read; arguments as those of `suggest_batch`."""

    space: MixedSpace
    history: Sequence[Observed]
    noise_variance: float | None = None
    prior: PriorScores | None = None
    """Of rows of `Relaxation.features`: the mean of the Gaussian process up to scale (`prior_mean.py`)"""
    cost: KnownCost | None = None

    def points(self, seed: int, initial: int, ascent: Ascent) -> Iterator[Tensor]:
        """Points [D] to evaluate next, without end, each chosen beside those before it. Raises as `suggest_batch`."""
        taken, pending = self._evaluated, self._where([one.is_pending for one in self.history])
        while len(taken) < initial or len(self._observed) < FEWEST_OUTCOMES:
            point = quasi_random(self.space, self._relaxation, taken, seed)
            yield point
            taken, pending = (torch.cat([rows, point[None]]) for rows in (taken, pending))
        of_features = None if self.cost is None else self.cost.over(self.space, self._relaxation)
        feasible = self._feasible if self.space.constraints else None
        beliefs = Beliefs(self._relaxation, self.surrogate, self._observed, self.noise_variance, feasible, of_features)
        yield from (point for point, _value in beliefs.points(taken, pending, ascent, seed))

    @cached_property
    def surrogate(self) -> DesignSurrogate:
        """Over the features of the relaxation; it is fitted when first asked for."""
        values = torch.tensor([one.value for one in self.history if one.value is not None], dtype=torch.float64)
        return fit(
            self._relaxation.features(self._known), values, self.noise_variance, self._relaxation.columns, self.prior
        )

    @cached_property
    def _relaxation(self) -> Relaxation:
        return relaxation_of(self.space)

    @cached_property
    def _evaluated(self) -> Tensor:
        """A point for each evaluation, [any, D]."""
        rows = [self.space.levels(one.setting) for one in self.history]
        columns = len(self.space.parameters)
        return self._relaxation.canonical(torch.tensor(rows, dtype=torch.float64).reshape(-1, columns))

    @cached_property
    def _known(self) -> Tensor:
        """A point for each value, [any, D]."""
        return self._where([one.value is not None for one in self.history])

    @cached_property
    def _observed(self) -> Tensor:
        """Distinct ones of `_known`, [any, D]."""
        found: Tensor = torch.unique(self._known, dim=0)
        return found

    def _where(self, chosen: Sequence[bool]) -> Tensor:
        return self._evaluated[torch.tensor(chosen, dtype=torch.bool)]

    def _feasible(self, asked: Tensor) -> Tensor:
        return torch.tensor([self.space.allows(self.space.setting(row)) for row in asked.tolist()], dtype=torch.bool)


def quasi_random(space: MixedSpace, relaxation: Relaxation, taken: Tensor, seed: int) -> Tensor:
    """The next point [D] of a scrambled Sobol sequence that is not `taken` [any, D] and that the constraints allow.

    Raises:
        SpaceExhausted: none is among the first `MOST_SOBOL`.
    """
    avoided, first, looked_at = PointSet(taken), len(taken), set()
    if len(avoided) >= relaxation.size:
        raise SpaceExhausted(f"all {relaxation.size:g} settings of the space have been proposed")
    for most in (FEW_SOBOL, MOST_SOBOL):
        drawn = _sobol(relaxation, most, seed)[first:]
        for key, row in zip(keys(drawn), drawn, strict=True):
            if key in looked_at:
                continue
            looked_at.add(key)
            setting = space.setting(row.tolist())
            point = torch.tensor(space.levels(setting), dtype=torch.float64)  # as rounding leaves it
            if not bool(avoided.contains(point[None])) and space.allows(setting):
                return point
        first = max(first, most)
    raise SpaceExhausted(f"no further setting that the constraints of the space allow is among {MOST_SOBOL:,} drawn")


def _sobol(relaxation: Relaxation, count: int, seed: int) -> Tensor:
    """The first points of the sequence, [count, D]."""
    columns = len(relaxation.factors)
    bounds = torch.stack([torch.zeros(columns), torch.ones(columns)]).double()
    unit = draw_sobol_samples(bounds, n=count, q=1, seed=seed)[:, 0]
    levels = torch.tensor([factor.levels for factor in relaxation.factors], dtype=torch.float64)
    drawn = torch.where(levels > 0, (unit * levels).floor().minimum((levels - 1).clamp_min(0)), unit)
    return relaxation.rounded(relaxation.canonical(drawn))
