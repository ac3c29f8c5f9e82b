"""What is predicted of a design before it is trained, as the mean of this search's Gaussian process.

A *prior* scores designs from elsewhere: another search, a cheaper model of the same thing. Only the order and the
relative distances of its scores count. With it the outcome of a design is

    y(z) = constant + slope * prior(z) + rest(z) + noise,    slope >= 0,

and the surrogate's kernel describes the rest alone: the autoregressive model of Kennedy and O'Hagan, Predicting the
Output from a Complex Computer Code When Fast Approximations Are Available (Biometrika 2000). Poloczek, Wang and
Frazier, Warm Starting Bayesian Optimization (Winter Simulation Conference 2016), likewise take the difference between
two tasks for a Gaussian process of its own, at slope one. `prior_gate.py` decides whether a prior is used at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from botorch.models.transforms.outcome import Standardize
from gpytorch.means import ConstantMean
from torch import Tensor

PriorScores = Callable[[Tensor], Tensor]
"""Predicted scores of designs, [..., designs, n] -> [..., designs], up to shift and scale; the higher the better."""
LEAST_SPREAD = 1e-12


class PriorMean(ConstantMean):  # type: ignore[misc]
    """m(z) = constant + slope * prior(z), on the scale of `StandardizedRest`, the prior's scores being standardised.

    Constant and slope maximise the marginal likelihood together with the kernel's parameters (`surrogate_choice.py`):
    given those, they are the generalised least squares of Rasmussen and Williams (2006), section 2.7, but for the bound
    at zero.
    """

    slope: Tensor
    """A scalar; zero before the fit"""

    def __init__(self, prior: PriorScores, train_X: Tensor) -> None:  # noqa: N803
        """
        Args:
            prior: of the scores.
            train_X: designs whose scores get mean zero and spread one, [trials, n].
        """
        super().__init__()
        self._prior = prior
        scores = prior(train_X)
        self._centre, self._spread = scores.mean(), scores.std().clamp_min(LEAST_SPREAD)
        self.register_buffer("slope", torch.zeros(()))
        self.to(train_X)

    def scores(self, designs: Tensor) -> Tensor:
        """The prior's, standardised: [..., designs, n] -> [..., designs]."""
        return (self._prior(designs) - self._centre) / self._spread

    def forward(self, input: Tensor) -> Tensor:
        mean: Tensor = super().forward(input) + self.slope * self.scores(input)
        return mean


class StandardizedRest(Standardize):  # type: ignore[misc]
    """Scales outcomes so that what a straight line in the prior's scores leaves of them has variance one.

    That line is one of ordinary least squares, level where it would fall; and one is the variance of the surrogate's
    kernel. With outcomes of variance one, as without a prior, the surrogate would take a good prior's predictions for
    as uncertain as none at all.
    """

    def __init__(self, scores: Tensor) -> None:
        """`scores` are the prior's of the designs to be trained on, [trials]."""
        super().__init__(m=1)
        self._scores = scores

    def forward(self, Y: Tensor, Yvar: Tensor | None = None, X: Tensor | None = None) -> Any:  # noqa: N803
        """As `Standardize`: outcomes [trials, 1] and their noise variance on the new scale."""
        if self.training:
            scores = self._scores[:, None] - self._scores.mean()
            scores = scores / scores.std().clamp_min(LEAST_SPREAD)
            centre = Y.mean()
            line = (scores * (Y - centre)).sum() / scores.square().sum().clamp_min(LEAST_SPREAD)
            line = line.clamp_min(0.0)
            lost = math.sqrt((len(Y) - 1) / max(len(Y) - 2, 1))  # a degree of freedom for the slope
            super().forward(centre + lost * (Y - centre - line * scores))
            self.eval()
        return super().forward(Y, Yvar, X)
