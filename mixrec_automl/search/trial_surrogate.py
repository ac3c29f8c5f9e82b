"""The surrogate of recorded trials, and which of their designs it takes for the best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from botorch.utils.sampling import manual_seed

from mixrec_automl.search.budgets import Cost, by_contribution
from mixrec_automl.search.encoding import Encoding
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.surrogate import DesignSurrogate, fit, ordinary_outcome, predict
from mixrec_automl.search.threads import one_thread
from mixrec_automl.store.records import Trial, by_design, scores
from search_spaces.design import Design

LEAST_COMPLETED = 2
"""Two designs have a spread; below that there is nothing to fit, whatever the number of trials."""


def fit_trials(trials: Sequence[Trial], encoding: Encoding, prior: PriorScores | None = None) -> DesignSurrogate:
    """Fitted to the completed ones of `trials`.

    Args:
        trials: `LEAST_COMPLETED` designs of them completed, at least.
        encoding: of their space.
        prior: as `DesignSurrogate`.
    """
    rows = [(design, score) for design, group in by_design(trials).items() for score in scores(group)]
    outcomes = torch.tensor([score for _, score in rows], dtype=torch.float64)
    designs = encoding.rows_of([design for design, _ in rows])
    return fit(designs, outcomes, training_seed_variance(trials), encoding.columns, prior)


def best_first(
    trials: Sequence[Trial], encoding: Encoding, prior: PriorScores | None = None, cost: Cost | None = None
) -> list[Design]:
    """The completed designs, the highest posterior mean first; below `LEAST_COMPLETED` of them as they came.

    A mean of few trials is pulled towards what the surrogate expects of the design, so luck counts less.

    Args:
        trials: in any state.
        encoding: as `fit_trials`.
        prior: as `fit_trials`.
        cost: of rows of the encoding; with it, the best is followed by those that are best at a lower cost.
    """
    designs = [design for design, group in by_design(trials).items() if scores(group)]
    if len(designs) < LEAST_COMPLETED:
        return designs
    with one_thread(), manual_seed(0):
        rows = encoding.rows_of(designs)
        surrogate = fit_trials(trials, encoding, prior)
        mean, _deviation = predict(surrogate, rows)
    if cost is None:
        order = mean.argsort(descending=True, stable=True).tolist()
    else:
        order = by_contribution(mean, cost(rows), ordinary_outcome(surrogate, mean))
    return [designs[place] for place in order]
