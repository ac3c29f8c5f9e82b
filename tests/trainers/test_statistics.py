"""Statistics against scipy, enumeration and simulated coverage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from tests.trainers.test_ranks import fixed, sequences
from trainers.errors import UserError
from trainers.ranks import Setting, evaluate_scores
from trainers.statistics import (
    bootstrap_intervals,
    compare,
    holm,
    paired_difference,
    paired_differences,
    permutation_ps,
    t_test_p,
)


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(0.4, size=300) - 0.3
    ((low, high),) = bootstrap_intervals(values[:, None], seed=1, resamples=20_000)
    peer = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert (low, high) == pytest.approx((peer.low, peer.high), abs=0.02 * (peer.high - peer.low))


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    inside = 0
    for trial in range(400):
        ((low, high),) = bootstrap_intervals(generator.gamma(0.5, size=(200, 1)), seed=trial, resamples=500)
        inside += low <= 0.5 <= high
    assert 0.90 <= inside / 400 <= 0.98


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_intervals(values[:, None], seed=5)
    monkeypatch.setattr("trainers.statistics.VALUES_AT_ONCE", 50 * 7)
    assert bootstrap_intervals(values[:, None], seed=5) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
def test_sign_flips_agree_with_enumeration_and_scipy(shift: float) -> None:
    values = np.random.default_rng(7).normal(shift, size=11)
    sums = np.array([np.dot(signs, values) for signs in product((-1, 1), repeat=11)])
    exact = float((np.abs(sums) >= abs(values.sum()) - 1e-12).mean())
    peer = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert exact == pytest.approx(peer)
    spread = np.sqrt(exact * (1 - exact) / 40_000)
    assert permutation_ps(values[:, None], seed=1, resamples=40_000)[0] == pytest.approx(exact, abs=4 * spread + 1e-4)


def test_sign_flips_where_nothing_differs_or_all_does() -> None:
    assert permutation_ps(np.zeros((20, 1)), seed=0) == 1
    assert permutation_ps(np.full((60, 1), 0.1), seed=0) == 1 / 10_001


def test_a_table_says_what_each_of_its_columns_says() -> None:
    left, right = np.random.default_rng(3).normal(size=(2, 40, 5)) + 0.1
    for column, found in enumerate(paired_differences(left - right, seed=4)):
        alone = paired_difference(left[:, column], right[:, column], seed=4)
        assert (found.permutation_p, found.t_test_p, found.users) == (alone.permutation_p, alone.t_test_p, 40)
        assert (found.mean, found.low, found.high) == pytest.approx((alone.mean, alone.low, alone.high), rel=1e-9)


def test_a_resample_draws_users_with_replacement() -> None:
    """Against gathering the drawn users one by one."""
    values = np.random.default_rng(8).normal(size=30)
    generator = np.random.default_rng(2)
    means = [values[generator.integers(30, size=(1, 30))].mean() for _ in range(500)]
    (found,) = bootstrap_intervals(values[:, None], seed=2, resamples=500)
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_t_test_agrees_with_scipys_paired_test() -> None:
    left, right = np.random.default_rng(1).normal(size=(2, 40))
    assert t_test_p(left - right) == pytest.approx(stats.ttest_rel(left, right).pvalue)
    assert t_test_p(np.zeros(5)) == 1
    assert t_test_p(np.full(5, 0.2)) == 0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_does() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = generator.uniform(0, 0.1, size=6)
        rejected = set()
        for step, index in enumerate(np.argsort(values)):
            if values[index] > 0.05 / (6 - step):
                break
            rejected.add(int(index))
        assert {index for index, p in enumerate(holm(values.tolist())) if p <= 0.05} == rejected


def test_models_compare_on_the_same_users_only() -> None:
    data = sequences(*[[user % 5, (user + 1) % 5, (user + 2) % 5] for user in range(40)], items=6)
    good = torch.nn.functional.one_hot((torch.arange(40) + 2) % 5, 6).double()
    test, nothing = [Setting("test")], fixed(torch.zeros(40, 6))
    (perfect,) = evaluate_scores(data, test, fixed(good))
    (flat,) = evaluate_scores(data, test, nothing)
    found = compare(perfect, flat, seed=0)
    expected = 1 - sum(1 / rank for rank in range(1, 7)) / 6
    assert found["mrr"].mean == pytest.approx(expected)
    assert found["mrr"].low == pytest.approx(expected)
    assert found["mrr"].permutation_p < 0.001
    assert found["recall_at_10"].mean == 0
    assert found["recall_at_10"].permutation_p == 1
    (fewer,) = evaluate_scores(data.select_users(np.arange(39)), test, nothing)
    with pytest.raises(UserError, match="different users"):
        compare(perfect, fewer, seed=0)


def test_values_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two users"):
        paired_difference(np.zeros(1), np.zeros(1), seed=0)
    with pytest.raises(ValueError, match="not finite"):
        paired_difference(np.array([0, np.nan]), np.zeros(2), seed=0)
