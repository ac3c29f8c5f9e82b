"""What the values of the database say about each other."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mixrec_automl.store.records import (
    Origin,
    Trial,
    TrialState,
    best_trial,
    by_design,
    fixed_design,
    replicates_of,
    scores,
)
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.search.trials import trial

QUEUED, RUNNING, FAILED, PRUNED = TrialState.QUEUED, TrialState.RUNNING, TrialState.FAILED, TrialState.PRUNED


def test_designs_and_replicates_come_by_number_in_whatever_order_they_are_given() -> None:
    trials = [trial(0, "000"), trial(1, "111"), trial(2, "000"), trial(3, "010"), trial(4, "111")]
    designs = by_design(random.Random(0).sample(trials, 5))
    assert [[each.number for each in replicates] for replicates in designs.values()] == [[0, 2], [1, 4], [3]]
    assert list(designs) == [trials[number].design for number in (0, 1, 3)]


def test_designs_of_one_architecture_are_told_apart_by_their_settings() -> None:
    small, large = (Design.of(Architecture.parse("000"), {"model.bottleneck": width}) for width in (8, 16))
    trials = [
        trial(0, small, 0.03, origin=Origin.FIXED),
        trial(1, large, 0.05),
        trial(2, large, 0.03),
        trial(3, small, 0.0),
    ]
    assert [[one.number for one in group] for group in by_design(trials).values()] == [[0, 3], [1, 2]]
    assert replicates_of(trials[2], trials) == [trials[1], trials[2]]
    assert best_trial(trials) == trials[1]
    assert fixed_design(trials[::-1]) == small
    assert fixed_design(trials[1:]) is None


def test_only_completed_trials_have_scores() -> None:
    trials = [trial(0, "000", mrr=0.03), trial(1, "000", mrr=0.02, state=RUNNING), trial(2, "000", state=PRUNED)]
    assert scores(trials) == [0.03]


def test_a_confirmation_of_which_a_training_failed_compares_what_its_designs_share() -> None:
    """B is ahead of A by .001 with both seeds that A has completed; the seed that A lacks was the unlucky one."""
    of_design = {"000": (0.030, 0.034, 0.038), "010": (None, 0.035, 0.039), "111": (0.032, 0.036, 0.040)}
    trials = [trial(0, "000", 0.036, origin=Origin.FIXED)]
    for design, values in of_design.items():
        for seed, value in enumerate(values, start=1):
            state = FAILED if value is None else TrialState.COMPLETED
            trials.append(trial(len(trials), design, value, state, Origin.CONFIRMATION, seed))
    best = best_trial(trials)
    assert best is not None
    assert str(best.design.architecture) == "111"


def test_the_same_design_in_two_variants_is_no_replicate() -> None:
    trials = [trial(0, "000", mrr=0.04), trial(1, "000", mrr=0.05), trial(2, "000", mrr=0.01)]
    trials = [replace(one, variant=name) for one, name in zip(trials, ("a", "b", "b"), strict=True)]
    assert replicates_of(trials[2], trials[::-1]) == trials[1:]
    best = best_trial(trials[::-1])
    assert best is not None
    assert best.number == 0, "the mean of b is lower"


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([], None),
        ([trial(0, "000", state=FAILED), trial(1, "001", state=PRUNED), trial(2, "010", state=RUNNING)], None),
        ([trial(0, "000", mrr=0.03), trial(1, "001", mrr=0.05), trial(2, "010", mrr=0.05)], 1),
        # The highest score of all is the lucky one of two.
        (
            [
                trial(0, "000", mrr=0.06),
                trial(1, "000", mrr=0.02),
                trial(2, "111", mrr=0.05),
                trial(3, "111", mrr=0.04),
            ],
            2,
        ),
        ([trial(0, "000", mrr=0.04), trial(1, "000", mrr=0.05), trial(2, "000", mrr=0.05)], 1),
        # Designs of equal mean: the earlier one.
        ([trial(0, "000", mrr=0.5), trial(1, "111", mrr=0.75), trial(2, "111", mrr=0.25)], 0),
        # Replicates that failed or were pruned take nothing away.
        ([trial(0, "000", mrr=0.03), trial(1, "111", mrr=0.04), trial(2, "111", state=FAILED)], 1),
        ([trial(0, "000", mrr=0.03), trial(1, "111", mrr=0.04), trial(2, "111", state=PRUNED)], 1),
        # One is yet to end, so the mean may still fall.
        ([trial(0, "000", mrr=0.03), trial(1, "111", mrr=0.04), trial(2, "111", state=QUEUED)], 0),
        ([trial(0, "000", state=FAILED), trial(1, "111", mrr=0.04), trial(2, "111", state=RUNNING)], 1),
    ],
)
def test_the_best_trial_is_the_best_replicate_of_the_best_design(trials: list[Trial], best: int | None) -> None:
    for given in (trials, trials[::-1]):
        found = best_trial(given)
        assert (None if found is None else found.number) == best
