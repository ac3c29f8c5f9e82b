"""Metrics against every rank that ties allow, hand-computed values and scikit-learn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from trainers.metrics import expected_gains, per_user, summarise
from trainers.ranks import UserRanks, rank_targets


def ranks_of(greater: list[int], ties: list[int]) -> UserRanks:
    users = len(greater)
    level = np.array(ties, dtype=np.int64)
    return UserRanks(
        user=np.array([f"u{user}" for user in range(users)], dtype=np.str_),
        target=np.zeros(users, dtype=np.int32),
        rank=np.array(greater) + (level + 1) / 2,
        ties=level,
        history_length=np.ones(users, dtype=np.int64),
        popularity=np.ones(users, dtype=np.int64),
        repeat=np.zeros(users, dtype=np.bool_),
        cold=np.zeros(users, dtype=np.bool_),
        split="test",
        exclude_seen=False,
        fingerprint="some-data",
    )


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=5))
def test_every_metric_is_the_mean_over_the_ranks_that_ties_allow(users: list[tuple[int, int]]) -> None:
    greater, ties = (list(column) for column in zip(*users, strict=True))
    values = per_user(ranks_of(greater, ties))
    for position, (above, level) in enumerate(users):
        possible = range(above + 1, above + level + 1)
        assert values["mrr"][position] == pytest.approx(np.mean([1 / rank for rank in possible]))
        discounted = [1 / math.log2(rank + 1) if rank <= 10 else 0 for rank in possible]
        assert values["ndcg_at_10"][position] == pytest.approx(np.mean(discounted))
        assert values["recall_at_10"][position] == pytest.approx(np.mean([rank <= 10 for rank in possible]))


@pytest.mark.parametrize("seed", range(5))
def test_ndcg_equals_scikit_learn_ties_included(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, size=(8, 25)).astype(float)
    targets = generator.integers(0, 25, size=8)
    relevance = np.zeros_like(scores)
    relevance[np.arange(8), targets] = 1
    at_target = scores[np.arange(8), targets][:, None]
    ours = expected_gains((scores > at_target).sum(1), (scores == at_target).sum(1))["ndcg_at_10"].mean()
    assert ours == pytest.approx(ndcg_score(relevance, scores, k=10), abs=1e-12)


def test_every_metric_equals_ranx_ties_included() -> None:
    """Its values come from a table made once, by `tests/trainers/ranx_table.py`: it cannot be installed beside us."""
    cases = json.loads(Path(__file__).with_name("ranx_cases.json").read_text("utf-8"))
    assert sum(case["scores"].count(case["scores"][case["target"]]) > 1 for case in cases) > 20, "ties"
    for case in cases:
        scores, target = torch.tensor([case["scores"]], dtype=torch.float64), torch.tensor([case["target"]])
        above, level = (column.numpy() for column in rank_targets(scores, target))
        for name, (value,) in expected_gains(above, level).items():
            assert value == pytest.approx(case[name], abs=1e-12), case


def test_a_constant_scorer_gets_what_a_random_one_does() -> None:
    items = 1000
    values = per_user(ranks_of([0], [items]))
    assert values["mrr"][0] == pytest.approx(sum(1 / rank for rank in range(1, items + 1)) / items)
    assert values["recall_at_10"][0] == pytest.approx(10 / items)


def test_a_large_catalogue_keeps_its_digits() -> None:
    values = per_user(ranks_of([0, 199_999], [1, 1]))
    assert values["mrr"] == pytest.approx([1, 1 / 200_000], rel=1e-9)
    assert values["ndcg_at_10"].tolist() == [1, 0]


def test_summary_by_hand() -> None:
    found = summarise(ranks_of([0, 1, 9, 10], [1, 1, 1, 1]))
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 4)
    assert found.ndcg_at_10 == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
    assert found.recall_at_10 == 0.75
    assert found.recall_at_10_error == pytest.approx(math.sqrt((3 * 0.25**2 + 0.75**2) / 3 / 4))
    assert found.users == 4


def test_one_user_has_no_error_and_none_no_metrics() -> None:
    assert math.isnan(summarise(ranks_of([3], [1])).mrr_error)
    with pytest.raises(ValueError, match="no users"):
        summarise(ranks_of([], []))
