"""The interval of the winner's advantage: against tables, a peer library, and in simulated searches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from mixrec_automl.search.advantage import LEVEL, advantage, dunnett_quantile
from mixrec_automl.store.records import Origin, Trial, TrialState, best_trial
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.search.trials import trial

DESIGNS = [Design(Architecture.from_bits([int(bit) for bit in f"{number:03b}"])) for number in range(8)]
FIXED = DESIGNS[0]


@pytest.mark.parametrize(
    ("compared", "freedom", "tabled"), [(2, 10, 2.57), (3, 10, 2.76), (2, 20, 2.38), (5, 20, 2.73), (9, 60, 2.77)]
)
def test_the_quantile_is_that_of_dunnetts_table(compared: int, freedom: int, tabled: float) -> None:
    assert dunnett_quantile(compared, freedom) == pytest.approx(tabled, abs=0.006)


@pytest.mark.parametrize("freedom", [1, 2, 5, 100])
def test_one_comparison_has_students_quantile(freedom: int) -> None:
    assert dunnett_quantile(1, freedom) == pytest.approx(stats.t.ppf(0.5 + LEVEL / 2, freedom), rel=1e-4)


def confirmation(table: np.ndarray, designs: Sequence[Design] = DESIGNS) -> list[Trial]:
    """[designs, seeds], the fixed design first."""
    return [
        trial(place, design, mrr=float(mrr), origin=Origin.CONFIRMATION, seed=seed)
        for place, (design, seed, mrr) in enumerate(
            (design, seed, mrr) for design, row in zip(designs, table, strict=False) for seed, mrr in enumerate(row)
        )
    ]


def test_it_is_a_paired_interval_over_the_shared_seeds() -> None:
    table = np.array([[0.030, 0.034], [0.036, 0.039]])
    found = advantage(confirmation(table), DESIGNS[1], FIXED)
    assert found is not None
    expected = stats.ttest_rel(table[1], table[0]).confidence_interval(LEVEL)
    assert found.difference == pytest.approx(0.0055)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-4)
    assert (found.seeds, found.compared) == (2, 1)


def test_an_effect_of_the_seed_itself_changes_nothing() -> None:
    table = np.random.default_rng(0).normal(0.03, 0.002, (4, 3))
    before = advantage(confirmation(table), DESIGNS[2], FIXED)
    after = advantage(confirmation(table + np.array([0.0, 0.5, -0.2])), DESIGNS[2], FIXED)
    assert before is not None
    assert after is not None
    assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_what_cannot_be_said_is_not_said() -> None:
    whole = confirmation(np.random.default_rng(0).normal(size=(3, 2)))
    assert advantage(whole, FIXED, FIXED) is None
    assert advantage(whole, DESIGNS[5], FIXED) is None, "was not confirmed"
    failed = [trial(0, FIXED, state=TrialState.FAILED, origin=Origin.CONFIRMATION), *whole[1:]]
    assert advantage(failed, DESIGNS[1], FIXED) is None, "one seed is left"
    assert advantage([trial(0, FIXED, 0.3), trial(1, DESIGNS[1], 0.4)], DESIGNS[1], FIXED) is None


def test_it_covers_the_truth_in_simulated_searches_and_an_uncorrected_one_does_not() -> None:
    """Seven near-equal designs, the three best of a noisy search confirmed, the best of these declared the winner."""
    draw, noise = np.random.default_rng(1), 0.002
    runs, covered, naive_covered = 1000, 0, 0
    for _ in range(runs):
        truth = 0.03 + draw.normal(0, 0.0005, 8)
        first = truth + draw.normal(0, noise, 8)
        others = 1 + np.argsort(-first[1:])[:3]
        chosen = [0, *others]
        again = truth[chosen][:, None] + draw.normal(0, 0.001, 3) + draw.normal(0, noise, (4, 3))
        trials = confirmation(again, [DESIGNS[number] for number in chosen])
        best = best_trial(trials)
        assert best is not None
        winner = DESIGNS.index(best.design)
        found = advantage(trials, best.design, FIXED)
        if found is None:  # the fixed design won, nothing is claimed
            runs -= 1
            continue
        true = truth[winner] - truth[0]
        covered += found.low <= true <= found.high
        apparent = first.argmax()  # the usual report: the best score of the search against the fixed design's
        half = 1.96 * noise * 2**0.5
        naive = first[apparent] - first[0]
        naive_covered += abs(naive - (truth[apparent] - truth[0])) <= half
    slack = 3 * (0.05 * 0.95 / runs) ** 0.5
    assert covered / runs >= LEVEL - slack
    assert naive_covered / runs < LEVEL - slack, "or the simulation could not tell a wrong interval"
