"""Which covariance the surrogate has: at each fit the one that would have predicted the outcomes best, each left out.

Each candidate of `kernels.py` is fitted to the outcomes by maximum a posteriori, and scored by the log density of each
outcome given the others: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2. With
hyperparameters that have seen the outcome left out, that flatters a covariance with many: one lengthscale a bit won
nearly always, also where it predicted worse. So what a fit without the outcome would give takes its place, to first
order: Stone, An Asymptotic Equivalence of Choice of Model by Cross-Validation and Akaike's Criterion (JRSS B 1977), and
Giordano et al., A Swiss Army Infinitesimal Jackknife (AISTATS 2019). And another one than the first is taken only where
its advantage over that exceeds the standard error of this advantage, as Breiman et al., Classification and Regression
Trees (1984), section 3.4.3, prune a tree.

Shapes: m outcomes, n columns, p hyperparameters.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mixrec_automl.search.kernels import Columns, Covariance, GroupedRBF, Prior, candidates

FEWEST = 12
"""Outcomes of designs below which the first candidate stays: from here on the choice lowers the error of predictions in
simulation, but for 36 bits at 12, and its intervals cover up to 4 % less (`benchmarks/surrogate_choice.py`)."""
TOLERANCE = 1e-6
"""L-BFGS ends where a step changes the log density by less than this share."""

HIGHEST_LEVERAGE = 0.95
"""An outcome whose own is higher decides on hyperparameters alone; the step without it is then no estimate."""
LEAST_INFORMATION = 1e-12
"""About the slope in a prior's scores; scores that are all equal have less."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcomes:
    """What a surrogate is fitted to."""

    designs: Tensor
    """[m, n]"""
    values: Tensor
    """[m], standardised"""
    noise: Tensor | Prior
    """Variance of each, [m]; where it is not known, the prior of one for all"""
    prior: Tensor | None = None
    """Scores of the designs from elsewhere (`prior_mean.py`), [m]; where absent, the mean is a constant"""


@dataclass(frozen=True)
class Fitted:
    """A covariance at its highest posterior density."""

    covariance: Covariance
    hyperparameters: Tensor
    """[p]"""
    noise: Tensor
    """Variance of each outcome, [m]"""
    mean: Tensor
    """Of the process where the prior's score is zero, a scalar"""
    slope: Tensor
    """Of the mean in the prior's scores, a scalar, at least zero"""
    log_densities: Tensor
    """Of each outcome given the others, [m]"""


def leave_one_out(precision: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Error of what the others say of each outcome and its variance, noise included, each [m]: equation 5.12.

    Args:
        precision: inverse of the covariance of the outcomes, noise included, [m, m].
        residual: outcomes minus the mean of the process, [m].
    """
    variance = precision.diagonal().reciprocal()
    return variance * (precision @ residual), variance


def log_densities(
    covariance: Tensor, residual: Tensor, slopes: Tensor, spreads: Tensor, prior: Tensor | None = None
) -> Tensor:
    """Of each outcome given the others, had mean and hyperparameters been fitted to these others alone, [m].

    Without outcome i the log posterior of the hyperparameters lacks the log density d_i of that outcome given the
    others, whose gradient is g_i = U_i r_i (equations 5.10 and 5.13): U_i holds the slopes of its mean and of the
    logarithm of its variance, r_i their residuals. Of the Fisher information H, priors included, U_i U_i' goes with it.
    So a Newton step leads to the optimum without it, and d_i falls by g_i' (H - U_i U_i')^-1 g_i. That is
    r' A (1 - A)^-1 r with its leverage A = U_i' H^-1 U_i.

    Args:
        covariance: of the outcomes, noise included, [m, m].
        residual: as `leave_one_out`.
        slopes: derivative of `covariance` in the logarithm of each hyperparameter, [p, m, m].
        spreads: of the priors of these logarithms, [p].
        prior: scores in which the mean has a slope, [m]; where absent, it is a constant.
    """
    precision = _inverse(torch.linalg.cholesky(covariance))
    error, variance = leave_one_out(precision, residual)
    sums = precision.sum(0)
    kept = 1 - variance * sums.square() / sums.sum()
    if prior is not None:
        apart, weighted = _apart(precision, prior)
        kept = kept - variance * weighted.square() / (weighted @ apart)
    error = error / kept  # the mean that is best for the others
    z = error / variance.sqrt()
    density = -0.5 * (z.square() + variance.log() + math.log(2 * math.pi))

    weights, relative = precision @ residual, precision @ slopes
    by_precision = variance * (relative * precision).sum(-1)  # slope of the logarithm of the variance, [p, m]
    of_mean = variance.sqrt() * (relative @ weights - weights * by_precision)
    u = torch.stack([of_mean, by_precision / math.sqrt(2)]).permute(2, 1, 0)  # [m, p, 2]
    r = torch.stack([z, (z.square() - 1) / math.sqrt(2)], dim=1)
    information = 0.5 * torch.einsum("iab,jba->ij", relative, relative) + torch.diag(spreads.square().reciprocal())
    leverage, axes = torch.linalg.eigh(u.mT @ torch.linalg.solve(information, u))
    leverage = leverage.clamp(0, HIGHEST_LEVERAGE)
    along = (axes.mT @ r[:, :, None])[..., 0]
    fall: Tensor = along.square() * leverage / (1 - leverage)
    return density - fall.sum(1)


def choose(columns: Columns, outcomes: Outcomes) -> Fitted:
    """The candidate that is used, fitted; it hangs on the outcomes alone."""
    first, *others = candidates(columns) or (None,)
    default = fit_covariance(Covariance(columns, first), outcomes)
    if len(outcomes.values) < FEWEST:
        return default
    found = [default, *(fit_covariance(Covariance(columns, one), outcomes, default) for one in others)]
    scores = [float(one.log_densities.sum()) for one in found]
    eligible = [0, *(place for place, one in enumerate(found) if _is_better(one, default))]
    chosen = max(eligible, key=scores.__getitem__)
    name = found[chosen].covariance.name
    told = ", ".join(f"{one.covariance.name} {score:.2f}" for one, score in zip(found, scores, strict=True))
    _log.info("surrogate of %d designs: %s; leave-one-out log likelihoods: %s", len(outcomes.values), name, told)
    return found[chosen]


def _is_better(one: Fitted, default: Fitted) -> bool:
    gain = one.log_densities - default.log_densities
    return bool(gain.mean() > gain.std() / len(gain) ** 0.5)


def fit_covariance(covariance: Covariance, outcomes: Outcomes, default: Fitted | None = None) -> Fitted:
    """Maximum a posteriori by L-BFGS in the logarithms of the hyperparameters, the mean profiled out.

    The mean is the best one for these hyperparameters, at the bound of its slope too. So the objective's gradient is
    the one with the mean held (envelope theorem).

    Args:
        covariance: whose hyperparameters are fitted.
        outcomes: to what.
        default: fit of the first candidate, where the search starts; at the modes of the priors where absent.
    """
    inferred = (outcomes.noise,) if isinstance(outcomes.noise, Prior) else ()
    priors = (*covariance.priors, *inferred)
    start = torch.tensor([prior.mode for prior in priors], dtype=torch.float64)
    if default is not None:
        shared = torch.cat([default.hyperparameters[1:], default.noise[:1] if inferred else default.noise[:0]])
        start[len(start) - len(shared) :] = shared
        if isinstance(covariance.discrete, GroupedRBF):
            start[: len(start) - len(shared)] = default.hyperparameters[0]
    means = torch.tensor([prior.mean for prior in priors], dtype=torch.float64)
    spreads = torch.tensor([prior.spread for prior in priors], dtype=torch.float64)

    def split(values: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(outcomes.noise, Tensor):
            return values, outcomes.noise
        return values[:-1], values[-1].expand(len(outcomes.values))

    def matrix_of(values: Tensor) -> Tensor:
        hyperparameters, noise = split(values)
        return covariance(hyperparameters, outcomes.designs, outcomes.designs) + torch.diag(noise)

    def loss(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        logs = torch.from_numpy(logarithms.copy()).requires_grad_()
        matrix = matrix_of(logs.exp())
        prior = (0.5 * ((logs - means) / spreads).square() + logs).sum()
        with torch.no_grad():
            root = torch.linalg.cholesky(matrix)
            precision = _inverse(root)
            residual = _residual(outcomes, *_mean(precision, outcomes))
            weights = precision @ residual
            value = 0.5 * (residual @ weights) + root.diagonal().log().sum() + prior
            slope = 0.5 * (precision - torch.outer(weights, weights))
        [gradient] = torch.autograd.grad([matrix, prior], logs, [slope, torch.ones_like(prior)])
        return float(value), gradient.numpy()

    bounds = [(math.log(prior.least), None) for prior in priors]
    result = minimize(loss, start.log().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, tol=TOLERANCE)
    logs = torch.from_numpy(result.x)
    matrix, slopes = matrix_of(logs.exp()), torch.func.jacfwd(lambda at: matrix_of(at.exp()))(logs)
    mean, slope = _mean(_inverse(torch.linalg.cholesky(matrix)), outcomes)
    prior = outcomes.prior if slope > 0 else None
    densities = log_densities(matrix, _residual(outcomes, mean, slope), slopes.movedim(-1, 0), spreads, prior)
    return Fitted(covariance, *split(logs.exp()), mean, slope, densities)


def _inverse(root: Tensor) -> Tensor:
    """Of the matrix with the Cholesky factor `root`."""
    inverse: Tensor = torch.cholesky_inverse(root)
    return inverse


def _mean(precision: Tensor, outcomes: Outcomes) -> tuple[Tensor, Tensor]:
    """Constant and slope of the highest likelihood, the latter at least zero: generalised least squares."""
    sums, values = precision.sum(0), outcomes.values
    constant = (sums @ values) / sums.sum()
    if outcomes.prior is None:
        return constant, torch.zeros_like(constant)
    apart, weighted = _apart(precision, outcomes.prior)
    slope = ((weighted @ values) / (weighted @ apart).clamp_min(LEAST_INFORMATION)).clamp_min(0.0)
    return constant - slope * (sums @ outcomes.prior) / sums.sum(), slope


def _residual(outcomes: Outcomes, mean: Tensor, slope: Tensor) -> Tensor:
    residual = outcomes.values - mean
    return residual if outcomes.prior is None else residual - slope * outcomes.prior


def _apart(precision: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """A prior's scores less the constant that is closest to them by `precision`, and `precision` times that, each [m].

    So a slope in them leaves the constant as it is (Frisch and Waugh, Econometrica 1933).
    """
    sums = precision.sum(0)
    apart = prior - (sums @ prior) / sums.sum()
    return apart, precision @ apart
