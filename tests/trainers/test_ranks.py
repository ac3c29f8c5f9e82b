"""Ranks against a sort of every tie order, and the Parquet round trip."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.histories import history_and_target
from trainers.data.sequence_data import Catalogue, SequenceData
from trainers.errors import UserError
from trainers.ranks import (
    NonFiniteScoreError,
    ScoreChunk,
    Setting,
    Split,
    check_comparable,
    concatenate,
    describe_ranks,
    evaluate_scores,
    leave_out,
    rank_targets,
    seen_pairs,
    targets_of,
)


def sequences(*rows: list[int], items: int) -> SequenceData:
    names = tuple(f"i{item}" for item in range(items))
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    users = tuple(f"u{user}" for user in range(len(rows)))
    return SequenceData(
        offsets, np.concatenate(rows).astype(np.int32), users, Catalogue(names, names, names), "some-data"
    )


def fixed(table: Tensor) -> ScoreChunk:
    """The rows [N, I] of a table as scores, whatever the split."""

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [table[users]] * len(splits)

    return score


def ranks_over_tie_orders(scores: list[int], target: int, excluded: set[int]) -> list[int]:
    """The target's rank in every order of the candidates that sorts by score."""
    candidates = [item for item in range(len(scores)) if item == target or item not in excluded]
    orders = [order for order in permutations(candidates) if [scores[i] for i in order] == sorted_down(scores, order)]
    return [order.index(target) + 1 for order in orders]


def sorted_down(scores: list[int], order: tuple[int, ...]) -> list[int]:
    return sorted((scores[item] for item in order), reverse=True)


@given(
    scores=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    target=st.integers(0, 5),
    excluded=st.lists(st.integers(0, 5), max_size=6),
)
def test_the_expected_rank_is_the_mean_over_all_tie_orders(scores: list[int], target: int, excluded: list[int]) -> None:
    target %= len(scores)
    excluded = [item % len(scores) for item in excluded]
    pairs = torch.tensor([[0, item] for item in excluded], dtype=torch.int64).reshape(-1, 2)
    table, targets = torch.tensor([scores], dtype=torch.float64), torch.tensor([target])
    greater, ties = leave_out(rank_targets(table, targets), table, targets, pairs)
    expected = ranks_over_tie_orders(scores, target, set(excluded))
    assert greater.item() + (ties.item() + 1) / 2 == pytest.approx(np.mean(expected))
    assert (greater.item() + 1, greater.item() + ties.item()) == (min(expected), max(expected))


def test_scores_one_ulp_apart_are_no_tie() -> None:
    low = np.float32(0.1)
    scores = torch.tensor([[low, np.nextafter(low, np.float32(1)), low]])
    greater, ties = rank_targets(scores, torch.tensor([0]))
    assert (greater.tolist(), ties.tolist()) == ([1], [2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_refused_wherever_it_is(bad: float) -> None:
    scores = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    scores[2, 700] = bad
    with pytest.raises(NonFiniteScoreError, match=r"1 of 3 users .*first: row 2"):
        rank_targets(scores, torch.zeros(3, dtype=torch.int64))


def test_excluded_items_belong_to_their_own_row() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    targets = torch.tensor([2, 2])
    greater, _ = leave_out(rank_targets(scores, targets), scores, targets, torch.tensor([[1, 0], [1, 0], [1, 2]]))
    assert greater.tolist() == [2, 1]


def test_splits_read_what_they_may() -> None:
    data = sequences([0, 1, 2, 3], [4, 3, 0, 0, 1], items=6)
    assert [(list(h), t) for h, t in (history_and_target(data, u, "validation") for u in (0, 1))] == [
        ([0, 1], 2),
        ([4, 3, 0], 0),
    ]
    assert [(list(h), t) for h, t in (history_and_target(data, u, "test") for u in (0, 1))] == [
        ([0, 1, 2], 3),
        ([4, 3, 0, 0], 1),
    ]
    users = np.array([1, 0])
    for split in ("validation", "test"):
        assert targets_of(data, users, split).tolist() == [history_and_target(data, u, split)[1] for u in (1, 0)]
    assert seen_pairs(data, users, "validation").tolist() == [[0, 4], [0, 3], [0, 0], [1, 0], [1, 1]]
    assert data.training_counts().tolist() == [2, 1, 0, 1, 1, 0]


def test_evaluation_describes_every_user(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sequences([0, 1, 2, 3], [4, 3, 0, 0, 1], [5, 4, 3, 2, 1, 0], items=6)
    table = torch.tensor([[6.0, 5, 4, 3, 2, 1], [5, 5, 5, 1, 1, 1], [1, 2, 3, 4, 5, 6]])
    monkeypatch.setattr("trainers.ranks.SCORES_AT_ONCE", 6)
    monkeypatch.setattr("trainers.ranks.USERS_AT_LEAST", 1)  # one user at a time
    settings = [Setting("validation"), Setting("validation", exclude_seen=True)]
    ranks, unseen = evaluate_scores(data, settings, fixed(table))
    assert ranks.user.tolist() == ["u0", "u1", "u2"]
    assert ranks.target.tolist() == [2, 0, 1]
    assert ranks.rank.tolist() == [3, 2, 5]
    assert ranks.ties.tolist() == [1, 3, 1]
    assert ranks.greater.tolist() == [2, 0, 4]
    assert ranks.history_length.tolist() == [2, 3, 4]
    assert ranks.popularity.tolist() == [1, 2, 1]
    assert ranks.repeat.tolist() == [False, True, False]
    assert ranks.cold.tolist() == [False, False, False]
    assert unseen.rank.tolist() == [1, 2, 1]  # u1 keeps its target, though seen
    (few,) = evaluate_scores(data, settings[:1], fixed(table), counted_on=data.select_users(np.array([1])))
    assert few.cold.tolist() == [True, False, True]


def test_a_score_function_of_another_shape_is_refused() -> None:
    data = sequences([0, 1, 2], items=4)
    with pytest.raises(ValueError, match=r"expected scores \[1, 4\], got \[1, 3\]"):
        evaluate_scores(data, [Setting("test")], fixed(torch.zeros(1, 3)))


def test_workers_parts_make_the_whole_and_parquet_keeps_it(tmp_path: Path) -> None:
    data = sequences([0, 1, 2, 3], [4, 3, 0, 0, 1], [5, 4, 3, 2, 1, 0], items=6)
    table = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    (whole,) = evaluate_scores(data, [Setting("test")], fixed(table))
    parts = []
    for users in (np.array([0, 1]), np.array([2])):
        ranked = rank_targets(table[users], targets_of(data, users, "test"))
        parts.append(describe_ranks(data, Setting("test"), users, ranked, data.training_counts()))
    joined = concatenate(parts)
    whole.write(tmp_path / "deep" / "ranks.parquet")
    for other in (joined, type(whole).read(tmp_path / "deep" / "ranks.parquet")):
        check_comparable(whole, other)
        for name, value in vars(whole).items():
            assert np.array_equal(getattr(other, name), value), name
            assert getattr(getattr(other, name), "dtype", None) == getattr(value, "dtype", None), name
    with pytest.raises(ValueError, match="more than once"):
        concatenate([whole, whole])


def test_results_that_do_not_compare_are_told_apart(tmp_path: Path) -> None:
    data = sequences([0, 1, 2, 3], [4, 3, 0, 0, 1], items=6)
    nothing = fixed(torch.zeros(2, 6))
    settings = [Setting("test"), Setting("validation"), Setting("test", exclude_seen=True)]
    flat, earlier, unseen = evaluate_scores(data, settings, nothing)
    with pytest.raises(UserError, match="split is test and validation"):
        check_comparable(flat, earlier)
    with pytest.raises(UserError, match="exclude_seen is False and True"):
        check_comparable(flat, unseen)
    (swapped,) = evaluate_scores(data.select_users(np.array([1, 0])), settings[:1], nothing)
    with pytest.raises(UserError, match="different users"):
        check_comparable(flat, swapped)
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(UserError, match=r"bad\.parquet: no table of per-user ranks"):
        type(flat).read(tmp_path / "bad.parquet")
