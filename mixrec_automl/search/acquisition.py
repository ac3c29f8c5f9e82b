"""Log noisy expected improvement in closed form, with pending designs integrated.

Letham et al., Constrained Bayesian Optimization with Noisy Experiments (2019), give the integral over the unknown
values of the designs seen so far; Ament et al., Unexpected Improvements to Expected Improvement (2023), the logarithm.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.input_constructors import acqf_input_constructor
from botorch.utils.sampling import draw_sobol_normal_samples
from torch import Tensor

from mixrec_automl.search.surrogate import DesignSurrogate, weights_of

FANTASIES = 64
JITTER = 1e-6
"""Added to the variance of every fantasised value: a thousandth of the spread of the outcomes."""
LEAST_VARIANCE = 1e-10


def log_standard_improvement(u: Tensor) -> Tensor:
    """log E[max(u + e, 0)] for e ~ N(0, 1), accurate far into the lower tail."""
    density = torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)
    near = torch.log((density + u * torch.special.ndtr(u)).clamp_min(1e-300))
    size = u.clamp_max(-1.0).abs()
    # E = density * (1 - size * Mills ratio); the bracket tends to 1 / u^2, which rounding swallows beyond -1e5.
    bracket = 1 - size * math.sqrt(math.pi / 2) * torch.special.erfcx(size / math.sqrt(2))
    bracket = torch.where(size > 1e4, size.pow(-2), bracket)
    far = -0.5 * u.square() - 0.5 * math.log(2 * math.pi) + torch.log(bracket)
    return torch.where(u > -1, near, far)


class LogNoisyExpectedImprovement(AcquisitionFunction):  # type: ignore[misc]
    """log of the expected improvement of f(z) over the best f among the designs observed or pending.

    Those values are unknown: the observed ones because of training noise, the pending ones because they have not
    come in. `FANTASIES` quasi-random draws of all of them jointly stand for their posterior; given a draw, f(z) is
    normal and its expected improvement has a closed form. Where two trials run at once, a pending design
    so takes away what is to be gained beside it, without a guess at its outcome.
    """

    _baseline: Tensor  # designs observed or pending, [b, n]
    _observed: Tensor  # training rows, [m, n]
    _rows: Tensor  # distinct ones of both, [r, n]
    _observed_at: Tensor  # where among them, [m]
    _baseline_at: Tensor  # [b]
    _log_scale: Tensor
    _root: Tensor  # Cholesky factor of the covariance of the outcomes, [m, m]
    _weights: Tensor  # [m]
    _whitened_baseline: Tensor  # [m, b]
    _fantasy_root: Tensor  # Cholesky factor of the posterior covariance at the baseline, [b, b]
    _draws: Tensor  # standard normal, [fantasies, b]
    _fantasies: Tensor  # values of the baseline, [fantasies, b]
    _best: Tensor  # of each fantasy, [fantasies, 1]

    def __init__(self, model: DesignSurrogate, X_baseline: Tensor, X_pending: Tensor | None = None) -> None:  # noqa: N803
        """
        Args:
            model: a fitted surrogate.
            X_baseline: observed designs, [any, n]; repeats count once.
            X_pending: designs that run or wait, [any, n].
        """
        super().__init__(model=model)
        seen = X_baseline if X_pending is None else torch.cat([X_baseline, X_pending])
        with torch.no_grad():
            self._baseline = torch.unique(seen.reshape(-1, seen.shape[-1]), dim=0)
            self._observed = model.train_inputs[0]
            self._log_scale = model.outcome_transform.stdvs.log().squeeze()
            self._root, self._weights = weights_of(model)

            cross = self._kernel(self._observed, self._baseline)
            self._whitened_baseline = self._whiten(cross)
            spread = self._kernel(self._baseline, self._baseline)
            spread = spread - self._whitened_baseline.T @ self._whitened_baseline
            self._fantasy_root = torch.linalg.cholesky(spread + JITTER * torch.eye(len(spread)).to(spread))
            self._draws = draw_sobol_normal_samples(len(spread), FANTASIES, dtype=spread.dtype, seed=0)
            self._fantasies = self._posterior_mean(self._baseline, cross) + self._draws @ self._fantasy_root.T
            self._best = self._fantasies.amax(dim=1, keepdim=True)
            both = torch.cat([self._observed, self._baseline])
            self._rows, places = torch.unique(both, dim=0, return_inverse=True)
            self._observed_at, self._baseline_at = places[: len(self._observed)], places[len(self._observed) :]

    def _kernel(self, left: Tensor, right: Tensor) -> Tensor:
        covariance: Tensor = self.model.covar_module(left, right).to_dense()
        return covariance

    def _whiten(self, cross: Tensor) -> Tensor:
        whitened: Tensor = torch.linalg.solve_triangular(self._root, cross, upper=False)
        return whitened

    def _posterior_mean(self, designs: Tensor, cross: Tensor) -> Tensor:
        mean: Tensor = self.model.mean_module(designs) + self._weights @ cross
        return mean

    def forward(self, X: Tensor) -> Tensor:  # noqa: N803
        """Values of single designs: [designs, 1, n] or [designs, n] -> [designs]; differentiable where X wants it."""
        with torch.set_grad_enabled(X.requires_grad):
            return self._values(X.reshape(-1, X.shape[-1]))

    def _values(self, designs: Tensor) -> Tensor:
        mean, deviation = self._given_fantasies(designs)
        improvement = log_standard_improvement((mean - self._best) / deviation) + deviation.log()
        return torch.logsumexp(improvement, dim=0) - math.log(FANTASIES) + self._log_scale

    def _given_fantasies(self, designs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [fantasies, designs] and standard deviation [designs] of f(z), given the values of the baseline."""
        with_rows = self._kernel(self._rows, designs)  # once, as most rows are both observed and of the baseline
        observed = with_rows[self._observed_at]
        whitened = self._whiten(observed)
        cross = with_rows[self._baseline_at] - self._whitened_baseline.T @ whitened
        shift = torch.linalg.solve_triangular(self._fantasy_root, cross, upper=False)
        mean = self._posterior_mean(designs, observed) + self._draws @ shift  # [fantasies, designs]
        variance = 1 - whitened.square().sum(0) - shift.square().sum(0)  # the kernel's k(z, z) is 1
        return mean, variance.clamp_min(LEAST_VARIANCE).sqrt()


@acqf_input_constructor(LogNoisyExpectedImprovement)  # type: ignore[untyped-decorator]
def _inputs(model: DesignSurrogate, X_baseline: Tensor, X_pending: Tensor | None = None, **_: Any) -> dict[str, Any]:  # noqa: N803
    return {"model": model, "X_baseline": X_baseline, "X_pending": X_pending}
