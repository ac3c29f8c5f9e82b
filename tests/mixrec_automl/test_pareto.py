"""The Pareto front of recorded trials."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from mixrec_automl.cluster.training import TRAINABLE_PARAMETERS
from mixrec_automl.pareto import expected_mrr, pareto_front
from mixrec_automl.store.records import Origin, Trial, TrialState, by_design, scores
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.search.trials import trial


def of_size(number: int, size: int, mrr: float | None, **changes: object) -> Trial:
    """One of the design whose width is `size`."""
    made = trial(number, Design.of(Architecture.parse("000"), {"model.bottleneck": size}), mrr)
    metrics = {} if mrr is None else {TRAINABLE_PARAMETERS: float(size)}
    return replace(made, metrics=metrics, **changes)  # type: ignore[arg-type]


def test_each_is_better_than_all_that_are_as_small() -> None:
    scores = ((30, 0.05), (10, 0.02), (20, 0.01), (40, 0.05), (50, 0.06))
    trials = [of_size(number, size, mrr) for number, (size, mrr) in enumerate(scores)]
    front = pareto_front(trials)
    assert [(one.trainable_parameters, one.mean_mrr) for one in front] == [(10, 0.02), (30, 0.05), (50, 0.06)]
    assert pareto_front(reversed(trials)) == front


def test_luck_that_further_trainings_did_not_have_counts_less() -> None:
    confirming = {"origin": Origin.CONFIRMATION}
    trials = [
        of_size(0, 10, 0.050, seed=0),
        of_size(1, 10, 0.049, seed=1, **confirming),
        of_size(2, 10, 0.057, seed=2, **confirming),
        of_size(3, 20, 0.0522, seed=0),
        of_size(4, 30, 0.030, seed=0),
        of_size(5, 20, None, state=TrialState.FAILED),
    ]
    (only,) = pareto_front(trials)
    assert (only.trials, only.best_trial, only.is_confirmed) == ((0, 1, 2), 2, True)
    assert only.mean_mrr == pytest.approx(0.052), "less than .0522, but of three"


def test_what_is_expected_is_nearly_the_best_guess_over_simulated_searches() -> None:
    """At least half of what Bayes' rule with the true variances gains over the raw means: both are estimated here, that
    between seeds with a default that is far too low."""
    rng, errors = np.random.default_rng(0), []
    for _ in range(300):
        truth, counts = 0.05 + 0.004 * rng.standard_normal(15), [3, 3, 2] + [1] * 12
        trials = [
            of_size(0, 10 + number, float(value + 0.004 * rng.standard_normal()), seed=seed)
            for number, (value, count) in enumerate(zip(truth, counts, strict=True))
            for seed in range(count)
        ]
        found = np.array(list(expected_mrr(trials).values()))
        means = np.array([fmean(scores(own)) for own in by_design(trials).values()])
        bayes = 0.05 + (means - 0.05) / (1 + 1 / np.array(counts))
        errors.append([np.mean((guess - truth) ** 2) for guess in (found, bayes, means)])
    shrunken, best, raw = np.mean(errors, axis=0)
    assert best <= shrunken < (best + raw) / 2


def test_collapsed_designs_do_not_switch_that_off() -> None:
    rng, errors = np.random.default_rng(1), []
    for _ in range(200):
        truth = 0.05 + 0.001 * rng.standard_normal(16)
        truth[:4] = 0.005
        seen = truth + 0.001 * rng.standard_normal(16)
        trials = [of_size(0, number, float(mrr)) for number, mrr in enumerate(seen, start=10)]
        found = np.array(list(expected_mrr(trials).values()))
        errors.append([np.mean((guess - truth)[4:] ** 2) for guess in (found, seen)])
    shrunken, raw = np.mean(errors, axis=0)
    assert shrunken < 0.9 * raw


def test_many_that_are_alike_do_not_hide_that_a_few_are_better() -> None:
    alike = [of_size(number, 10 + number, 0.03 + 0.00005 * (-1) ** number) for number in range(12)]
    better = [of_size(12 + number, 100 + number, 0.045 + 0.0002 * number) for number in range(4)]
    again = [of_size(16 + number, 103, 0.0457 + 0.0001 * number, seed=number + 1) for number in range(3)]
    front = pareto_front([*alike, *better, *again])
    assert front[-1].trainable_parameters == 103
    assert front[-1].expected_mrr == pytest.approx(front[-1].mean_mrr, abs=0.0003)


def test_designs_that_differ_no_more_than_luck_are_expected_to_be_alike() -> None:
    trials = [of_size(number, 10 + number // 2, mrr) for number, mrr in enumerate((0.04, 0.06, 0.061, 0.039))]
    assert list(expected_mrr(trials).values()) == pytest.approx([0.05, 0.05])
    assert len(pareto_front(trials)) == 1, "the smallest"
    assert expected_mrr(trials[:1]) == {trials[0].design: 0.04}


def test_trials_without_a_score_or_a_size_are_left_out() -> None:
    assert pareto_front([]) == []
    assert pareto_front([of_size(0, 10, None, state=TrialState.RUNNING), trial(1, "010", 0.05)]) == []
