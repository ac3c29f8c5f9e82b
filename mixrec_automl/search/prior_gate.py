"""Whether a prior's scores are used: only where they rank this search's own designs, as chance would seldom do.

Ranks of scores and outcomes themselves mislead twice. Designs of a search lie in clusters, neighbours have similar
outcomes and similar scores, so two unrelated functions correlate more often than independent numbers do. And later
designs all lie where outcomes are high, so that a good prior tells less and less of the differences between them. So
both are first freed of what the designs tried before already say: what is ranked is by how much each outcome departs
from the surrogate's prediction out of the earlier ones, in standard deviations, and the same of the scores. The former
are the recursive residuals of Brown, Durbin and Evans (Journal of the Royal Statistical Society B, 1975). Without a
relation they are independent and alike, whatever the designs and however earlier outcomes led to them, as far as the
surrogate's covariance is right; so Kendall's rank correlation of the two has its exact null distribution.

In a simulation of searches that climb (`tests/mixrec_automl/search/test_prior_gate.py`) useless priors pass at 5.0 % of
300 by these residuals, as they should, and at 7.3 % by raw ranks.

Feurer, Letham and Bakshy, Scalable Meta-Learning for Bayesian Optimization (arXiv 1802.02219), likewise judge models of
other tasks by how well they rank the designs of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from scipy import stats
from torch import Tensor

from mixrec_automl.search.encoding import Encoding
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.trial_surrogate import fit_trials
from mixrec_automl.store.records import Trial, by_design, scores

LEVEL = 0.05
"""How often a useless prior passes at any one proposal. The next one asks anew, so that such a pass does not last."""
LEAST_DESIGNS = 5
"""The fewest with which a prior can pass: they have four residuals, and one order out of 24 is right."""


def recursive_residuals(values: Tensor, covariance: Tensor) -> Tensor:
    """By how much each value but the first departs from its best linear unbiased prediction out of those before it, in
    standard deviations of that: [any, n - 1].

    Args:
        values: [any, n], of an unknown constant mean.
        covariance: of any one row, up to scale, [n, n].
    """
    # Differences to the first value know nothing of the constant; their Cholesky factor predicts one after the other.
    differences = (values - values[:, :1])[:, 1:]
    between = covariance - covariance[:, :1] - covariance[:1, :] + covariance[0, 0]
    root = torch.linalg.cholesky(between[1:, 1:])
    residuals: Tensor = torch.linalg.solve_triangular(root, differences.T, upper=False)
    return residuals.T


def chance_of_ranking(predicted: Tensor, outcomes: Tensor, covariance: Tensor) -> float:
    """How probable a rank correlation at least as high is where `predicted` and `outcomes` are unrelated.

    Args:
        predicted: scores of n designs in the order in which they were proposed, [n].
        outcomes: of the same, [n].
        covariance: of the outcomes, noise included, up to scale, [n, n].
    """
    if predicted.std() <= 1e-9 * predicted.abs().max():  # equal but for rounding: they rank nothing
        return 1.0
    residuals = recursive_residuals(torch.stack([predicted, outcomes]), covariance)
    return float(stats.kendalltau(*residuals.numpy(), alternative="greater").pvalue)


def passes(prior: PriorScores, trials: Sequence[Trial], encoding: Encoding) -> bool:
    """Whether `prior` ranks the completed designs of `trials` as chance would in fewer than `LEVEL` of all cases."""
    outcomes = {design: own for design, group in by_design(trials).items() if (own := scores(group))}
    if len(outcomes) < LEAST_DESIGNS:
        return False
    designs = encoding.rows_of(list(outcomes))
    means = torch.tensor([fmean(own) for own in outcomes.values()], dtype=torch.float64)
    counts = torch.tensor([len(own) for own in outcomes.values()], dtype=torch.float64)
    alone = fit_trials(trials, encoding)
    with torch.no_grad():
        noise = training_seed_variance(trials) / alone.outcome_transform.stdvs.square().squeeze()
        covariance = alone.covar_module(designs).to_dense() + torch.diag(noise / counts)
        return chance_of_ranking(prior(designs), means, covariance) <= LEVEL
