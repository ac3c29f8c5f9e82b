"""Gaussian process over designs, whose noise level is known (design notes: `noise.py`) or inferred."""

from __future__ import annotations

from typing import Any

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms.outcome import Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from mixrec_automl.search import surrogate_choice
from mixrec_automl.search.kernels import Columns, Covariance, DesignKernel, Prior, candidates
from mixrec_automl.search.prior_mean import PriorMean, PriorScores, StandardizedRest
from mixrec_automl.search.surrogate_choice import Outcomes, choose
from search_spaces.architecture import BITS_PER_LAYER


class DesignSurrogate(SingleTaskGP):  # type: ignore[misc]
    """GP on points of a discrete or mixed space, whose covariance is chosen by each fit (`surrogate_choice.py`).

    With few trials the spread of the outcomes is itself uncertain, which standardising ignores: 90 % intervals cover
    about 82 % at 6 trials, 84 % at 12, 88 % at 30 and 90 % at 50 (`benchmarks/surrogate_choice.py`).

    With a prior's scores the covariance is that of what they leave (`prior_mean.py`).
    """

    covar_module: DesignKernel

    def __init__(
        self,
        train_X: Tensor,  # noqa: N803
        train_Y: Tensor,  # noqa: N803
        train_Yvar: Tensor | None = None,  # noqa: N803
        columns: Columns | None = None,
        prior: PriorScores | None = None,
    ) -> None:
        """Standardises the outcomes; predictions come back on their own scale.

        Args:
            train_X: bits, or `Relaxation.features`, [trials, n], float64.
            train_Y: outcomes, [trials, 1].
            train_Yvar: variance between training seeds, [trials, 1], in squared units of the outcome; where absent, one
                level for all is inferred.
            columns: what those of `train_X` are; bits where absent.
            prior: of such rows; where absent, the mean is a constant.
        """
        columns = Columns(train_X.shape[-1]) if columns is None else columns
        first = Covariance(columns, next(iter(candidates(columns)), None))
        modes = torch.tensor([prior.mode for prior in first.priors], dtype=torch.float64)
        super().__init__(
            train_X=train_X,
            train_Y=train_Y,
            train_Yvar=train_Yvar,
            covar_module=DesignKernel(first, modes),
            outcome_transform=Standardize(m=1) if prior is None else StandardizedRest(prior(train_X)),
        )
        if prior is not None:
            self.mean_module = PriorMean(prior, train_X)
        self.is_noise_known = train_Yvar is not None

    @classmethod
    def construct_inputs(cls, training_data: Any, prior: PriorScores | None = None) -> dict[str, Any]:
        """What Ax gives to `__init__`; `prior` is of its `model_options`."""
        return {**super().construct_inputs(training_data), "prior": prior}

    def custom_fit(self, mll: ExactMarginalLogLikelihood, **_: Any) -> ExactMarginalLogLikelihood:
        """What `fit_gpytorch_mll` does, Ax's call of it included: choose the covariance and fit it."""
        columns = self.covar_module.covariance.columns
        noise: Tensor | Prior = noise_of(self)
        if not self.is_noise_known:
            own = self.likelihood.noise_covar
            least = float(own.raw_noise_constraint.lower_bound)
            noise = Prior(float(own.noise_prior.loc), float(own.noise_prior.scale), least)
        mean, designs = self.mean_module, self.train_inputs[0]
        scores = mean.scores(designs) if isinstance(mean, PriorMean) else None
        found = choose(columns, Outcomes(designs, self.train_targets, noise, scores))
        self.covar_module = DesignKernel(found.covariance, found.hyperparameters)
        mean.initialize(constant=found.mean)
        if isinstance(mean, PriorMean):
            mean.slope = found.slope
        if not self.is_noise_known:
            self.likelihood.initialize(noise=found.noise[0])
        return mll.eval()


class ArchitectureSurrogate(DesignSurrogate):
    """One on architectures, whose layers are alike; Ax hands no further arguments on."""

    def __init__(
        self,
        train_X: Tensor,  # noqa: N803
        train_Y: Tensor,  # noqa: N803
        train_Yvar: Tensor | None = None,  # noqa: N803
        prior: PriorScores | None = None,
    ) -> None:
        """As `DesignSurrogate`, of bits."""
        super().__init__(train_X, train_Y, train_Yvar, Columns(train_X.shape[-1], bits_per_layer=BITS_PER_LAYER), prior)


def fit(
    designs: Tensor,
    outcomes: Tensor,
    noise_variance: float | None,
    columns: Columns | None = None,
    prior: PriorScores | None = None,
) -> DesignSurrogate:
    """Maximum a posteriori fit of hyperparameters and mean, the covariance chosen.

    Args:
        designs: bits, or features of a mixed space, [trials, n]; replicates are rows of their own.
        outcomes: [trials].
        noise_variance: variance of one outcome between training seeds; None: it is inferred.
        columns: as `DesignSurrogate`.
        prior: as `DesignSurrogate`.
    """
    rows, values = designs.to(torch.float64), outcomes.to(torch.float64)
    noise = None
    if noise_variance is not None:  # a mean says what its replicates say, and leaving it out leaves out all of them
        rows, places, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
        values = torch.zeros(len(rows), dtype=torch.float64).index_add(0, places, values) / counts
        noise = noise_variance / counts[:, None].to(torch.float64)
    surrogate = DesignSurrogate(rows, values[:, None], noise, columns, prior)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(surrogate.likelihood, surrogate))
    return surrogate


def noise_of(surrogate: DesignSurrogate) -> Tensor:
    """Variance of the noise of each training outcome, [trials], on the scale of the standardised outcomes."""
    noise: Tensor = surrogate.likelihood.noise.detach()
    return noise.expand(len(surrogate.train_targets))


def outcome_covariance(surrogate: DesignSurrogate) -> Tensor:
    """Of the training outcomes, noise included, [trials, trials], on the standardised scale."""
    covariance: Tensor = surrogate.covar_module(surrogate.train_inputs[0]).to_dense()
    return covariance + torch.diag(noise_of(surrogate))


def weights_of(surrogate: DesignSurrogate) -> tuple[Tensor, Tensor]:
    """What the posterior mean gives to each training outcome, [trials], behind the Cholesky factor of their covariance:
    m(z) + k(z, outcomes) @ weights."""
    root = torch.linalg.cholesky(outcome_covariance(surrogate))
    residual = surrogate.train_targets - surrogate.mean_module(surrogate.train_inputs[0])
    return root, torch.cholesky_solve(residual[:, None], root)[:, 0]


def predict(surrogate: DesignSurrogate, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of the noise-free outcome, each [designs]."""
    with torch.no_grad():
        posterior = surrogate.posterior(bits.to(torch.float64))
        return posterior.mean[:, 0], posterior.variance[:, 0].sqrt()


def ordinary_outcome(surrogate: DesignSurrogate, means: Tensor) -> Tensor:
    """What a design is worth of which nothing is known, [], but at most the median of `means`, posterior means [any].

    As a search goes on it tries good designs mostly, so that their median rises; what the surrogate expects without
    data is estimated with their correlations in mind, and does not. With a prior it is the level of what was tried.
    """
    with torch.no_grad():
        expected: Tensor = surrogate.mean_module(surrogate.train_inputs[0]).mean()
        own = surrogate.outcome_transform
        return torch.minimum(own.means.squeeze() + own.stdvs.squeeze() * expected, means.median())


def leave_one_out(surrogate: DesignSurrogate) -> tuple[Tensor, Tensor]:
    """What the surrogate would have predicted for each of its outcomes from the others, hyperparameters kept.

    Returns:
        Mean and standard deviation (training noise included), each [outcomes], on the scale of the outcomes.
    """
    with torch.no_grad():
        designs, targets = surrogate.train_inputs[0], surrogate.train_targets
        precision = torch.linalg.inv(outcome_covariance(surrogate))
        error, variance = surrogate_choice.leave_one_out(precision, targets - surrogate.mean_module(designs))
        scale = surrogate.outcome_transform.stdvs.squeeze()
        return surrogate.outcome_transform.means.squeeze() + scale * (targets - error), scale * variance.sqrt()
