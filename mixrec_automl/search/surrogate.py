"""Gaussian process over designs, whose noise level is known (design notes: `noise.py`) or inferred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms.outcome import Standardize
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import ProductKernel, RBFKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from mixrec_automl.search.prior_mean import PriorMean, PriorScores, StandardizedRest

LENGTHSCALE_PRIOR_SPREAD = 0.75
NUMERIC_PRIOR_MEAN, NUMERIC_PRIOR_SPREAD = math.sqrt(2), math.sqrt(3)
"""Of log lengthscales in [0, 1]^d, the mean for d = 1: Hvarfner et al., Vanilla Bayesian Optimization Performs Great in
High Dimensions (ICML 2024), as BoTorch's own default."""
SHORTEST_LENGTHSCALE = 0.1


class DesignSurrogate(SingleTaskGP):  # type: ignore[misc]
    """GP on {0,1}^n whose covariance decays with the Hamming distance: k(z, z') = exp(-distance / (2 l^2)).

    One lengthscale serves all bits. In simulations of sparse and pairwise responses at 9 to 36 bits and 6 to 30
    trials (`benchmarks/surrogate_choice.py`) one for each bit (ARD, same prior) gave errors up to 11 % lower and a
    similar likelihood, but 90 % intervals that cover 70 to 82 %, and took up to five times as long to fit. The prior
    of the lengthscale grows with the square root of n, so that the correlation expected between two random designs
    does not depend on the number of bits. With few trials the spread of the outcomes is itself uncertain, which
    standardising ignores: 90 % intervals cover about 80 % at 6 trials, 85 % at 12 and 88 to 91 % at 30.

    In a mixed space that covariance of the discrete features is multiplied by one of the numeric ones, with a
    lengthscale for each of those. With a prior's scores the covariance is that of what they leave (`prior_mean.py`).
    """

    def __init__(
        self,
        train_X: Tensor,  # noqa: N803
        train_Y: Tensor,  # noqa: N803
        train_Yvar: Tensor | None = None,  # noqa: N803
        numeric: int = 0,
        discrete: int | None = None,
        prior: PriorScores | None = None,
    ) -> None:
        """Standardises the outcomes; predictions come back on their own scale.

        Args:
            train_X: bits, or `Relaxation.features`, [trials, n], float64.
            train_Y: outcomes, [trials, 1].
            train_Yvar: variance between training seeds, [trials, 1], in squared units of the outcome; where absent, one
                level for all is inferred.
            numeric: how many of the last columns are numeric.
            discrete: number of discrete parameters; that of the other columns where absent.
            prior: where absent, the mean is a constant.
        """
        columns = train_X.shape[-1]
        parts = []
        if columns > numeric:
            own = range(columns - numeric) if numeric else None  # None: all, which are then not copied at each call
            parts.append(_discrete_kernel(columns - numeric if discrete is None else discrete, own))
        if numeric:
            parts.append(_numeric_kernel(range(columns - numeric, columns)))
        scaling = Standardize(m=1) if prior is None else StandardizedRest(prior(train_X))
        super().__init__(
            train_X=train_X,
            train_Y=train_Y,
            train_Yvar=train_Yvar,
            covar_module=parts[0] if len(parts) == 1 else ProductKernel(*parts),
            outcome_transform=scaling,
        )
        if prior is not None:
            self.mean_module = PriorMean(prior, train_X, scaling.slope)

    @classmethod
    def construct_inputs(cls, training_data: Any, prior: PriorScores | None = None) -> dict[str, Any]:
        """What Ax gives to `__init__`; `prior` is of its `model_options`."""
        return {**super().construct_inputs(training_data), "prior": prior}


def _discrete_kernel(parameters: int, columns: Sequence[int] | None) -> RBFKernel:
    prior = LogNormalPrior(0.5 * math.log(parameters), LENGTHSCALE_PRIOR_SPREAD)
    constraint = GreaterThan(SHORTEST_LENGTHSCALE, transform=None, initial_value=prior.mode)
    active = None if columns is None else tuple(columns)
    return RBFKernel(active_dims=active, lengthscale_prior=prior, lengthscale_constraint=constraint)


def _numeric_kernel(columns: Sequence[int]) -> RBFKernel:
    prior = LogNormalPrior(NUMERIC_PRIOR_MEAN + 0.5 * math.log(len(columns)), NUMERIC_PRIOR_SPREAD)
    constraint = GreaterThan(SHORTEST_LENGTHSCALE / 4, transform=None, initial_value=prior.mode)
    return RBFKernel(
        ard_num_dims=len(columns),
        active_dims=tuple(columns),
        lengthscale_prior=prior,
        lengthscale_constraint=constraint,
    )


def fit(
    bits: Tensor,
    outcomes: Tensor,
    noise_variance: float | None,
    numeric: int = 0,
    discrete: int | None = None,
    prior: PriorScores | None = None,
) -> DesignSurrogate:
    """Maximum a posteriori fit of lengthscales and mean.

    Args:
        bits: or features of a mixed space, [trials, n]; replicates are rows of their own.
        outcomes: [trials].
        noise_variance: variance of one outcome between training seeds; None: it is inferred.
        numeric: as `DesignSurrogate`.
        discrete: as `DesignSurrogate`.
        prior: as `DesignSurrogate`.
    """
    rows = outcomes.to(torch.float64)[:, None]
    noise = None if noise_variance is None else torch.full_like(rows, noise_variance)
    surrogate = DesignSurrogate(bits.to(torch.float64), rows, noise, numeric, discrete, prior)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(surrogate.likelihood, surrogate))
    return surrogate


def noise_of(surrogate: DesignSurrogate) -> Tensor:
    """Variance of the noise of each training outcome, [trials], on the scale of the standardised outcomes."""
    noise: Tensor = surrogate.likelihood.noise.detach()
    return noise.expand(len(surrogate.train_targets))


def predict(surrogate: DesignSurrogate, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of the noise-free outcome, each [designs]."""
    with torch.no_grad():
        posterior = surrogate.posterior(bits.to(torch.float64))
        return posterior.mean[:, 0], posterior.variance[:, 0].sqrt()


def leave_one_out(surrogate: DesignSurrogate) -> tuple[Tensor, Tensor]:
    """What the surrogate would have predicted for each trial's outcome from the others, parameters kept.

    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations 5.10 to 5.12.

    Returns:
        Mean and standard deviation (training noise included), each [trials], on the scale of the outcomes.
    """
    with torch.no_grad():
        bits = surrogate.train_inputs[0]
        covariance = surrogate.covar_module(bits).to_dense() + torch.diag(noise_of(surrogate))
        precision = torch.linalg.inv(covariance)
        residual = surrogate.train_targets - surrogate.mean_module(bits)
        variance = precision.diagonal().reciprocal()
        mean = surrogate.train_targets - variance * (precision @ residual)
        scale = surrogate.outcome_transform.stdvs.squeeze()
        return surrogate.outcome_transform.means.squeeze() + scale * mean, scale * variance.sqrt()
