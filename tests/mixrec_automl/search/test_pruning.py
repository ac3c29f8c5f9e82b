"""The rules of pruning against slow literal versions and cases by hand; the gate against scipy and published values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mixrec_automl.search import pruning
from mixrec_automl.search.pruning import (
    METRIC,
    Curve,
    curves_of,
    is_among_best,
    is_rung,
    may_be_pruned,
    median_of_averages,
    rank_correlation,
    reason_to_prune,
)
from mixrec_automl.search_config import PruningConfig
from mixrec_automl.store.records import Observation, Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.search.trials import trial

BENCH = Path(__file__).parents[3] / "benchmarks" / "damoe_bench.parquet"
RUNNING = TrialState.RUNNING
VALUES = st.sampled_from([0.01, 0.02, 0.03, 0.04])
"""Few, so that there are ties"""


def design(number: int) -> Architecture:
    return Architecture.from_bits([int(bit) for bit in format(number + 1, "012b")])


def ended(finals: Sequence[float], early: Sequence[float]) -> tuple[list[Trial], dict[int, Curve]]:
    """A completed trial for each pair, of two epochs: `early`, then `finals`."""
    pairs = list(zip(early, finals, strict=True))
    trials = [trial(number, design(number), mrr=max(pair)) for number, pair in enumerate(pairs)]
    return trials, {number: {1: first, 2: last} for number, (first, last) in enumerate(pairs)}


def judged(
    config: PruningConfig, trials: Sequence[Trial], curves: Mapping[int, Curve], curve: Curve, **changed: object
) -> str | None:
    """What becomes of one more trial with `curve`."""
    number = len(trials)
    one = replace(trial(number, design(number), state=RUNNING), **changed)  # type: ignore[arg-type]
    return reason_to_prune(config, one, max(curve), [*trials, one], {**curves, number: curve})


# The curves


def test_the_curve_of_a_resumed_trial_is_one_curve() -> None:
    now = datetime.now(UTC)
    seen = [
        Observation(0, 2, 2, {METRIC: 0.3, "loss_seq": 1.0}, now),
        Observation(0, 1, 2, {METRIC: 0.2}, now),
        Observation(0, 1, 1, {METRIC: 0.1}, now),
        Observation(1, 1, 1, {"loss_seq": 1.0}, now),
    ]
    assert curves_of(seen) == {0: {1: 0.1, 2: 0.3}}, "the later attempt's report of an epoch stays"


# The median rule


def literal_median_rule(curve: Sequence[float], completed: Sequence[Sequence[float]]) -> bool:
    """Vizier, 3.2: whether to stop, s epochs into `curve`."""
    s = len(curve)
    averages = sorted(sum(other[:s]) / s for other in completed if len(other) >= s)
    if not averages:
        return False
    half = len(averages) // 2
    middle = averages[half] if len(averages) % 2 else (averages[half - 1] + averages[half]) / 2
    return max(curve) < middle - 1e-15


@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(st.lists(VALUES, min_size=1, max_size=5), max_size=6))
def test_the_median_rule_equals_its_literal_version(curve: list[float], completed: list[list[float]]) -> None:
    s = len(curve)
    others = [dict(enumerate(other, 1)) for other in completed if len(other) >= s]
    middle = median_of_averages(others, s)
    assert (middle is not None and max(curve) < middle - 1e-15) == literal_median_rule(curve, completed)


def test_the_median_rule_by_hand() -> None:
    """Running averages up to epoch 2: .02, .03, .05, .04; median .035. The best value so far counts, not the last."""
    curves = [{1: 0.01, 2: 0.03, 3: 0.9}, {1: 0.02, 2: 0.04}, {1: 0.05, 2: 0.05}, {1: 0.04, 2: 0.04}]
    assert median_of_averages(curves, 2) == pytest.approx(0.035)
    assert median_of_averages([], 2) is None


# Successive halving


def test_the_rungs() -> None:
    assert [epoch for epoch in range(60) if is_rung(epoch, 2, 3)] == [2, 6, 18, 54]
    assert [epoch for epoch in range(20) if is_rung(epoch, 1, 2)] == [1, 2, 4, 8, 16]


def literal_halving(value: float, reached: Sequence[float], eta: int) -> bool:
    """ASHA, Algorithm 2: whether `value` is among top_k(rung, |rung| / eta); below eta trials all go on."""
    if len(reached) < eta:
        return True
    top = sorted(reached, reverse=True)[: math.floor(len(reached) / eta)]
    return value >= min(top)


@given(st.lists(VALUES, min_size=1, max_size=12), st.integers(2, 4))
def test_halving_equals_its_literal_version(reached: list[float], eta: int) -> None:
    for value in reached:
        assert is_among_best(value, reached, eta) == literal_halving(value, reached, eta)


def test_halving_by_hand() -> None:
    reached = [0.05, 0.01, 0.04, 0.02, 0.03, 0.06]
    assert [value for value in reached if is_among_best(value, reached, 3)] == [0.05, 0.06]
    assert is_among_best(0.01, [0.01, 0.02], 3), "two of a rung are too few to tell"


# The gate


def test_the_bound_is_that_of_its_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of Bonett's `statpsych::ci.spear`, whose interval has two sides."""
    monkeypatch.setattr(pruning, "LEVEL", 0.975)
    y = [21, 4, 9, 12, 35, 18, 10, 22, 24, 1, 6, 8, 13, 16, 19]
    x = [67, 28, 30, 28, 52, 40, 25, 37, 44, 10, 14, 20, 28, 40, 51]
    trials, curves = ended([one + 100.0 for one in x], [float(one) for one in y])
    found = rank_correlation(trials, curves, 1)
    assert found is not None
    assert found.designs == 15
    assert found.value == pytest.approx(0.8699639, abs=1e-7)
    assert found.lower == pytest.approx(0.5840951, abs=1e-7)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=4, max_size=20))
def test_the_correlation_is_scipys(pairs: list[tuple[float, float]]) -> None:
    trials, curves = ended([late for _, late in pairs], [early for early, _ in pairs])
    found = rank_correlation(trials, curves, 1)
    early, best = [early for early, _ in pairs], [max(pair) for pair in pairs]
    if len(set(early)) == 1 or len(set(best)) == 1:
        assert found is None
    else:
        assert found is not None
        assert found.value == pytest.approx(stats.spearmanr(early, best).statistic)
        assert -1 <= found.lower <= found.value + 1e-9


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_how_often_the_bound_holds(rho: float) -> None:
    """Normal pairs, of which Spearman's correlation is known: 6 / pi arcsin(rho / 2). Nominal are 95 %."""
    rng = np.random.default_rng(0)
    truth, designs, held, draws = 6 / math.pi * math.asin(rho / 2), 12, 0, 1000
    for _ in range(draws):
        early, noise = rng.standard_normal((2, designs))
        late = 100 + rho * early + math.sqrt(1 - rho**2) * noise  # above all early values, so the best epoch
        trials, curves = ended(late.tolist(), early.tolist())
        found = rank_correlation(trials, curves, 1)
        assert found is not None
        held += found.lower <= truth
    assert 0.93 < held / draws < 0.985


def test_the_gate_reads_one_completed_trial_of_each_design() -> None:
    trials, curves = ended([0.2, 0.3, 0.4, 0.5], [0.02, 0.03, 0.04, 0.05])
    expected = rank_correlation(trials, curves, 1)
    others = [
        trial(4, trials[0].architecture, mrr=0.9, seed=1),  # a replicate
        trial(5, design(5), state=RUNNING),
        trial(6, design(6), state=TrialState.PRUNED),
        trial(7, design(7), mrr=0.1),  # without this epoch
    ]
    curves |= {number: {1: 0.01} for number in (4, 5, 6)} | {7: {2: 0.1}}
    assert rank_correlation([*trials, *others], curves, 1) == expected
    assert rank_correlation(trials[:3], curves, 1) is None


def test_what_the_gate_makes_of_damoe_bench() -> None:
    """64 designs, recorded in full: with one seed most trainings peak in their first epoch, which then is the result;
    with the other nearly all go on to rise, and the first epoch foretells little."""
    is_open, peaks = [], []
    for seed in (1, 2):
        rows = pq.read_table(BENCH, columns=["design", "seed", "epoch", "mrr"]).to_pylist()
        mrr = {(row["design"], row["epoch"]): row["mrr"] for row in rows if row["seed"] == seed}
        designs = sorted({name for name, _ in mrr})
        trials, curves = ended([mrr[name, 2] for name in designs], [mrr[name, 1] for name in designs])
        found = rank_correlation(trials, curves, 1)
        assert found is not None
        assert found.designs == 64
        is_open.append(found.lower > PruningConfig().min_rank_correlation)
        peaks.append(sum(mrr[name, 1] >= mrr[name, 2] for name in designs))
    assert peaks == [52, 1]
    assert is_open == [True, False]


# What becomes of a trial

FORETELLING = ended([10.0 + one for one in range(1, 13)], [float(one) for one in range(1, 13)])
"""Twelve designs of 1, 2, ..., 12 after the first epoch, whose order is that of the end"""


def test_a_trial_below_the_median_is_given_up_with_the_reason() -> None:
    config = PruningConfig(rule="median")
    assert judged(config, *FORETELLING, {1: 6.4}) == (
        "below the median of 12 trials at epoch 1: 6.4000 < 6.5000 "
        "(rank correlation with the end 1.00, at least 1.00, over 12 completed designs)"
    )
    assert judged(config, *FORETELLING, {1: 6.5}) is None, "strictly below"
    assert judged(replace(config, min_epochs=2), *FORETELLING, {1: 0.01}) is None
    assert judged(replace(config, rule="none"), *FORETELLING, {1: 0.01}) is None


def test_a_trial_that_is_not_among_the_best_is_given_up_with_the_reason() -> None:
    config = PruningConfig(rule="halving", eta=3)
    reason = judged(config, *FORETELLING, {1: 8.9})
    assert reason is not None
    assert reason.startswith("not among the best 1/3 of 13 trials at epoch 1: 8.9000 (")
    assert judged(config, *FORETELLING, {1: 9.1}) is None, "the fourth of thirteen"
    assert judged(replace(config, eta=2), *FORETELLING, {1: 99.0, 2: 0.01}) is None, "the best so far counts"
    assert judged(config, *FORETELLING, {1: 0.01, 2: 0.01}) is None, "no rung"


@pytest.mark.parametrize("rule", ["median", "halving"])
def test_nothing_is_given_up_before_the_gate_is_open(rule: str) -> None:
    config = PruningConfig(rule=rule)  # type: ignore[arg-type]
    trials, curves = FORETELLING
    low = {1: 0.001}
    assert judged(config, trials, curves, low) is not None
    assert judged(replace(config, min_trials=13), trials, curves, low) is None, "too few trials"
    shuffled = ended([90.0 - one for one in range(12)], [float(one) for one in range(1, 13)])
    assert judged(config, *shuffled, low) is None, "the first epoch foretells the opposite"
    noisy = ended(np.random.default_rng(1).permutation(12).tolist(), [-1.0 - one for one in range(12)])
    assert judged(config, *noisy, {1: -99.0}) is None, "it foretells nothing"
    weak = ended([3.0, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11], [-12.0 + one for one in range(12)])
    found = rank_correlation(*weak, 1)
    assert found is not None
    assert 0.5 < found.lower < found.value < 0.95
    assert judged(config, *weak, {1: -99.0}) is not None
    assert judged(replace(config, min_rank_correlation=found.lower), *weak, {1: -99.0}) is None, "strictly above"


@pytest.mark.parametrize("rule", ["median", "halving"])
def test_the_reference_and_the_replicates_are_spared(rule: str) -> None:
    config = PruningConfig(rule=rule)  # type: ignore[arg-type]
    trials, curves = FORETELLING
    low = {1: 0.001}
    assert judged(config, trials, curves, low) is not None
    assert judged(config, trials, curves, low, origin=Origin.FIXED) is None
    for state in TrialState:
        other = trial(12, design(99), state=state, mrr=0.5 if state is TrialState.COMPLETED else None)
        assert judged(config, [*trials, other], curves, low, design=Design(design(99)), seed=1) is None
    assert may_be_pruned(trials[0], trials)


def test_an_epoch_without_a_validation_mrr_is_not_judged() -> None:
    trials, curves = FORETELLING
    one = trial(12, design(12), state=RUNNING)
    assert reason_to_prune(PruningConfig(rule="median"), one, 1, [*trials, one], curves) is None
