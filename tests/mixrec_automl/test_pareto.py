"""The Pareto front of recorded trials."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixrec_automl.cluster.training import TRAINABLE_PARAMETERS
from mixrec_automl.pareto import pareto_front
from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.search.trials import trial


def of_size(number: int, size: int, mrr: float | None, **changes: object) -> Trial:
    """One of the design whose width is `size`."""
    made = trial(number, Design.of(Architecture.parse("000"), {"model.bottleneck": size}), mrr)
    metrics = {} if mrr is None else {TRAINABLE_PARAMETERS: float(size)}
    return replace(made, metrics=metrics, **changes)  # type: ignore[arg-type]


def test_each_is_better_than_all_that_are_as_small() -> None:
    trials = [
        of_size(0, 30, 0.05),
        of_size(1, 10, 0.02),
        of_size(2, 20, 0.01),
        of_size(3, 40, 0.05),
        of_size(4, 50, 0.06),
    ]
    front = pareto_front(trials)
    assert [(one.trainable_parameters, one.mrr) for one in front] == [(10, 0.02), (30, 0.05), (50, 0.06)]
    assert pareto_front(reversed(trials)) == front


def test_a_design_counts_with_its_mean_and_says_how_much_that_is_worth() -> None:
    confirming = {"origin": Origin.CONFIRMATION}
    trials = [
        of_size(0, 10, 0.09, seed=0),
        of_size(1, 10, 0.01, seed=1, **confirming),
        of_size(2, 20, 0.06),
        of_size(3, 20, None, state=TrialState.FAILED),
    ]
    small, large = pareto_front(trials)
    assert (small.trials, small.best_trial, small.is_confirmed) == ((0, 1), 0, True)
    assert small.mrr == pytest.approx(0.05)
    assert (large.mrr, large.trials, large.best_trial, large.is_confirmed) == (0.06, (2,), 2, False)


def test_trials_without_a_score_or_a_size_are_left_out() -> None:
    assert pareto_front([]) == []
    assert pareto_front([of_size(0, 10, None, state=TrialState.RUNNING), trial(1, "010", 0.05)]) == []
