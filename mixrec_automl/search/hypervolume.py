"""Log noisy expected hypervolume improvement in closed form, of an outcome and a known cost.

Expected hypervolume improvement under noise is that of Daulton, Balandat and Bakshy, Parallel Bayesian Optimization of
Multiple Noisy Objectives with Expected Hypervolume Improvement (NeurIPS 2021). As the cost is known, the improvement
by a design is a sum over the steps of `budgets.py` that it can be afforded in, each an expected improvement over the
best outcome of that step; so nothing but the values of what has been seen is sampled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixrec_automl.search.acquisition import FANTASIES, LogNoisyExpectedImprovement, log_standard_improvement
from mixrec_automl.search.budgets import Budgets, Cost
from mixrec_automl.search.surrogate import DesignSurrogate, ordinary_outcome

LEAST_WIDTH = 1e-300


class LogNoisyHypervolumeImprovement(LogNoisyExpectedImprovement):
    """log of the expected gain in the best outcome for a budget, averaged over all budgets."""

    _starts: Tensor  # steps at which the best outcome changes in any fantasy, [k]
    _ends: Tensor  # [k]
    _levels: Tensor  # the best outcome of each step, [fantasies, k]

    def __init__(
        self,
        model: DesignSurrogate,
        X_baseline: Tensor,  # noqa: N803
        X_pending: Tensor | None,  # noqa: N803
        cost: Cost,
    ) -> None:
        """As `LogNoisyExpectedImprovement`, with the `cost` of such designs."""
        super().__init__(model, X_baseline, X_pending)
        self._cost = cost
        with torch.no_grad():
            scale = model.outcome_transform
            means = model.posterior(self._baseline).mean[:, 0]
            reference = (ordinary_outcome(model, means) - scale.means.squeeze()) / scale.stdvs.squeeze()
        budgets = Budgets(cost(self._baseline), reference)
        levels = budgets.best(self._fantasies)
        changes = torch.cat([levels.new_ones(1, dtype=torch.bool), (levels[:, 1:] > levels[:, :-1]).any(dim=0)])
        self._starts, self._levels = budgets.starts[changes], levels[:, changes]
        self._ends = torch.cat([self._starts[1:], self._starts.new_ones(1)])

    def _values(self, designs: Tensor) -> Tensor:
        mean, deviation = self._given_fantasies(designs)
        costs = self._cost(designs.detach())
        widths = (self._ends[:, None] - self._starts[:, None].maximum(costs)).clamp_min(LEAST_WIDTH)
        above = (mean[:, None, :] - self._levels[:, :, None]) / deviation  # [fantasies, k, designs]
        total = torch.logsumexp(log_standard_improvement(above) + widths.log(), dim=(0, 1))
        return total + deviation.log() - math.log(FANTASIES) + self._log_scale
