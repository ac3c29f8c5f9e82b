"""The surrogate of recorded trials, and which of their designs it takes for the best."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.surrogate import DesignSurrogate, fit, predict
from mixrec_automl.store.records import Trial, by_design, scores
from search_spaces.architecture import Architecture, as_bit_rows


def fit_trials(trials: Sequence[Trial], prior: PriorScores | None = None) -> DesignSurrogate:
    """Fitted to the completed ones of `trials`, replicates as rows of their own.

    Args:
        trials: two designs of them completed, at least.
        prior: as `DesignSurrogate`.
    """
    rows = [(design, score) for design, group in by_design(trials).items() for score in scores(group)]
    bits = torch.tensor(as_bit_rows(design for design, _ in rows), dtype=torch.float64)
    outcomes = torch.tensor([score for _, score in rows], dtype=torch.float64)
    return fit(bits, outcomes, training_seed_variance(trials), prior=prior)


def best_first(trials: Sequence[Trial], surrogate: DesignSurrogate) -> list[Architecture]:
    """The completed designs of `trials`, the highest posterior mean first."""
    designs = completed_designs(trials)
    mean, _deviation = predict(surrogate, torch.tensor(as_bit_rows(designs)))
    return [designs[place] for place in mean.argsort(descending=True, stable=True).tolist()]


def completed_designs(trials: Sequence[Trial]) -> list[Architecture]:
    """As they came."""
    return [design for design, group in by_design(trials).items() if scores(group)]
