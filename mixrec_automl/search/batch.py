"""Several points at once, one after another: each is chosen beside those before it, which are pending.

Greedy maximisation of a joint acquisition function, as Wilson, Hutter and Deisenroth, Maximizing Acquisition Functions
for Bayesian Optimization (NeurIPS 2018), section 3. `LogNoisyExpectedImprovement` integrates over the values of what is
pending in closed form, so that no outcome is guessed, and the surrogate is fitted once for all points.

Shapes: D parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.budgets import Cost
from mixrec_automl.search.hypervolume import LogNoisyHypervolumeImprovement
from mixrec_automl.search.probabilistic_reparameterization import Acquisition, Ascent, Feasible, propose_point
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.replication import design_to_train
from mixrec_automl.search.surrogate import DesignSurrogate, predict

T = TypeVar("T")


@dataclass(frozen=True)
class Beliefs:
    """What is known of a space once its surrogate is fitted."""

    relaxation: Relaxation
    surrogate: DesignSurrogate
    """Over the features of the relaxation."""
    observed: Tensor
    """Distinct points with a value, [any, D]."""
    noise_variance: float | None = None
    """Of one value of a point around its mean; where absent, no point comes twice."""
    feasible: Feasible | None = None
    """The constraints of the space, where it has any."""
    cost: Cost | None = None
    """Of features, where there is a second objective."""

    def points(self, taken: Tensor, pending: Tensor, ascent: Ascent, seed: int) -> Iterator[tuple[Tensor, float]]:
        """Points [D] to evaluate, without end, each with the acquisition value of the best new point found for it.

        It is that new point, or one of those observed where a replicate of that promises to teach more.

        Args:
            taken: that must not come as new ones, [any, D].
            pending: the point of each evaluation that has not ended, [any, D].
            ascent: options of PR.
            seed: of all random numbers.

        Raises:
            SpaceExhausted: as `propose_point`.
        """
        good = self._best_first()
        while True:
            point, value = propose_point(
                self._acquisition(pending), self.relaxation, taken, good, ascent, seed, self.feasible
            )
            point = point.detach()
            if self.noise_variance is not None:
                point = self._to_evaluate(point, pending, self.noise_variance)
            yield point, value
            taken, pending = (torch.cat([rows, point[None]]) for rows in (taken, pending))

    def watched(self, taken: Tensor, ascent: Ascent, seed: int) -> tuple[Tensor, Tensor]:
        """How PR comes to the new point that it would propose next, nothing being pending.

        Returns:
            That point [D], and phi [steps + 1, restarts, P] on the way to it.

        Raises:
            SpaceExhausted: as `propose_point`.
        """
        path: list[Tensor] = []
        acquisition = self._acquisition(self.observed[:0])
        point, _value = propose_point(
            acquisition, self.relaxation, taken, self._best_first(), ascent, seed, self.feasible,
            lambda phi: path.append(phi.detach().clone()),
        )  # fmt: skip
        return point, torch.stack(path)

    def _best_first(self) -> Tensor:
        """The observed points, the highest posterior mean first."""
        mean, _deviation = predict(self.surrogate, self.relaxation.features(self.observed))
        return self.observed[mean.argsort(descending=True, stable=True)]

    def _acquisition(self, pending: Tensor) -> Acquisition:
        features = self.relaxation.features
        seen, waiting = features(self.observed), features(pending)
        of_features = (
            LogNoisyExpectedImprovement(self.surrogate, seen, waiting)
            if self.cost is None
            else LogNoisyHypervolumeImprovement(self.surrogate, seen, waiting, self.cost)
        )
        return lambda asked: of_features(features(asked))

    def _to_evaluate(self, new: Tensor, pending: Tensor, noise_variance: float) -> Tensor:
        """`design_to_train` of points instead of their features."""
        features = self.relaxation.features
        candidates = torch.cat([new[None], self.observed])
        asked = features(candidates)
        chosen = design_to_train(self.surrogate, asked[0], asked[1:], features(pending), noise_variance, self.cost)
        return candidates[(asked == chosen).all(dim=1)][0]


def at_most(count: int, points: Iterable[T]) -> list[T]:
    """The first `count` of `points`, or as many as there are.

    Raises:
        SpaceExhausted: `points` raised it before the first one.
    """
    found: list[T] = []
    try:
        for point in islice(points, count):
            found.append(point)
    except SpaceExhausted:
        if not found:
            raise
    return found
