"""Reasons against a closed form, against a slow loop over shortened histories, and for every kind of recommender."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.trainers.baselines.test_package import packed
from tests.trainers.tiny_package import HISTORY, NUM_ITEMS, make_package
from trainers.baselines.package import read_baseline_package
from trainers.data.sequence_data import Catalogue
from trainers.errors import UserError
from trainers.explanation import Reason, occlusion
from trainers.package import Package, read_package
from trainers.recommend import Query, Recommender, recommend


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(make_package(tmp_path_factory.mktemp("made"), epochs=4).package)


@dataclass
class Additive:
    """Scores are sums of one row of `weights` for each item of the history."""

    weights: Tensor
    calls: int = 0
    reads_texts: bool = False

    @property
    def catalogue(self) -> Catalogue:
        names = tuple("abc")
        return Catalogue(names, tuple(f"Title {name}" for name in names), names)

    def score(self, histories: Sequence[NDArray[np.int32]]) -> Tensor:
        self.calls += 1
        return torch.stack([self.weights[list(history)].sum(dim=0) for history in histories])

    def score_texts(self, histories: Sequence[Sequence[str]]) -> Tensor:
        raise AssertionError(histories)


def test_a_scorer_that_adds_items_up_has_reasons_in_closed_form() -> None:
    """Leaving `a` out of `a, b` leaves the row of `b`: drop = w_a - log sum exp(w_a + w_b) + log sum exp(w_b)."""
    scorer = Additive(torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]))
    query = Query(["a", "b"], k=3)
    found = recommend(scorer, query)
    before = scorer.calls
    reasons = occlusion(scorer, query, found)
    assert scorer.calls == before + 1, "all shortened histories in one call"
    assert [one.item for one in found] == ["a", "b", "c"]
    rows = scorer.weights.tolist()
    for place, of_item in enumerate(reasons):
        expected = []
        for left_out, kept in ((0, 1), (1, 0)):
            both = sum(math.exp(x + y) for x, y in zip(*rows[:2], strict=True))
            alone = sum(math.exp(x) for x in rows[kept])
            drop = rows[left_out][place] - math.log(both) + math.log(alone)
            expected.append(("ab"[left_out], f"Title {'ab'[left_out]}", pytest.approx(drop, abs=1e-6)))
        expected.sort(key=lambda one: -one[2].expected)
        assert [(one.item, one.title, one.drop) for one in of_item] == expected
    assert reasons[0][0].item == "a"
    assert reasons[0][1].drop < 0, "an item can speak against another one"


def test_an_item_without_a_say_has_no_drop() -> None:
    scorer = Additive(torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]))
    query = Query(["a", "c"], k=1)
    assert occlusion(scorer, query, recommend(scorer, query)) == [
        [Reason("a", "Title a", pytest.approx(1.2, abs=0.5)), Reason("c", "Title c", pytest.approx(0.0, abs=1e-6))]
    ]


def by_hand(package: Recommender, history: list[str], item: str, *, texts: bool = False) -> dict[str, float]:
    """The drop of `item` for every history item, one history at a time."""

    def log_probability(history: list[str]) -> float:
        catalogue = package.catalogue
        if texts:
            scores = package.score_texts([history])[0]
        else:
            scores = package.score([np.array([catalogue.index[one] for one in history], dtype=np.int32)])[0]
        return float(scores[catalogue.index[item]] - scores.logsumexp(dim=0))

    return {
        left_out: log_probability(history) - log_probability([one for one in history if one != left_out])
        for left_out in history
    }


def assert_as_by_hand(package: Recommender, query: Query) -> None:
    found = recommend(package, query)
    reasons = occlusion(package, query, found)
    assert len(reasons) == len(found)
    for one, of_item in zip(found, reasons, strict=True):
        expected = by_hand(package, list(query.history), one.item, texts=query.texts)
        assert {reason.item: reason.drop for reason in of_item} == pytest.approx(expected, abs=2e-4)
        drops = [reason.drop for reason in of_item]
        assert drops == sorted(drops, reverse=True)


@pytest.mark.parametrize(
    "history", [["i0", "i1", "i2"], ["i3", "i9"], ["i5", "i2", "i5"], [f"i{n}" for n in range(HISTORY + 3)]]
)
def test_reasons_equal_a_slow_loop(package: Package, history: list[str]) -> None:
    """With an item twice, and with a history that is longer than what the model reads."""
    assert_as_by_hand(package, Query(history, k=4, exclude_seen=True))


def test_texts_have_reasons_too(package: Package) -> None:
    query = Query(["a lamp", "Thing 3", "Thing 4"], texts=True, k=3)
    assert_as_by_hand(package, query)
    reasons = occlusion(package, query, recommend(package, query))
    assert all(reason.title == reason.item for of_item in reasons for reason in of_item)


@pytest.mark.parametrize("name", ["sasrec", "mf", "fdsa"])
def test_baselines_have_reasons(name: str, tmp_path: Path) -> None:
    packed(name, tmp_path)
    package = read_baseline_package(tmp_path / "package")
    assert_as_by_hand(package, Query([package.catalogue.ids[item] for item in (3, 4, 5)], k=3))


def test_an_item_beyond_the_window_is_no_reason(package: Package) -> None:
    query = Query([f"i{number}" for number in range(HISTORY + 1)], k=2)
    for of_item in occlusion(package, query, recommend(package, query)):
        assert {reason.item: reason.drop for reason in of_item}["i0"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("query", [Query(["i3"], k=2), Query(["i3", "i3"], k=2), Query(["a lamp"], texts=True, k=2)])
def test_a_history_of_one_item_has_nothing_to_compare_with(package: Package, query: Query) -> None:
    assert occlusion(package, query, recommend(package, query)) == [[], []]


def test_nothing_recommended_has_no_reasons(package: Package) -> None:
    everything = [f"i{number}" for number in range(NUM_ITEMS)]
    query = Query(everything, exclude_seen=True)
    assert occlusion(package, query, recommend(package, query)) == []


def test_an_unknown_item_is_named(package: Package) -> None:
    found = recommend(package, Query(["i1", "i2"], k=1))
    with pytest.raises(UserError, match="'nope' is not among"):
        occlusion(package, Query(["i1", "i2", "nope"]), found)
