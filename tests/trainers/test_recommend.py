"""Recommendations against a sort of the model's own scores, and every history that is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainers.tiny_package import HISTORY, NUM_ITEMS, make_package
from trainers.errors import UserError
from trainers.package import Package, read_package
from trainers.recommend import Query, Recommendation, recommend, recommend_each

IDS = [f"i{number}" for number in range(NUM_ITEMS)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(make_package(tmp_path_factory.mktemp("made"), epochs=20).package)


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A model that sees nothing but the text of an item."""
    made = make_package(tmp_path_factory.mktemp("text"), model={"collaborative_columns": "none"})
    return read_package(made.package)


@pytest.mark.parametrize("kind", ["lora", "ia3", "none"])
def test_a_package_of_each_kind_of_adapter_recommends(kind: str, tmp_path: Path) -> None:
    sites = ("causal_expert", "context_expert", "recommendation_adapter")
    package = read_package(make_package(tmp_path, model=dict.fromkeys(sites, kind)).package)
    history = ["i0", "i1", "i2"]
    assert items(recommend(package, Query(history, k=5))) == [item for item, _ in by_hand(package, history)[:5]]


def by_hand(package: Package, history: list[str]) -> list[tuple[str, float]]:
    """(item, log-probability) of all items, best first."""
    index = [IDS.index(item) for item in history][-HISTORY:]
    with torch.inference_mode():
        scores = package.model.scores(package.layout.histories([index], [-1]))[-1]
        probabilities = (scores - scores.logsumexp(dim=0)).tolist()
    return sorted(zip(IDS, probabilities, strict=True), key=lambda pair: -pair[1])


def items(found: list[Recommendation]) -> list[str]:
    return [one.item for one in found]


@pytest.mark.parametrize("history", [["i3"], ["i0", "i1", "i2"], ["i5", "i5"], ["i14", "i0", "i1", "i2"]])
def test_the_best_items_come_first_with_title_and_log_probability(package: Package, history: list[str]) -> None:
    found = recommend(package, Query(history, k=5))
    expected = by_hand(package, history)[:5]
    assert items(found) == [item for item, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert [one.rank for one in found] == [1, 2, 3, 4, 5]
    assert [one.title for one in found] == [f"Thing {one.item[1:]}" for one in found]


def test_what_was_learnt_is_recommended(package: Package) -> None:
    """Users step through the catalogue; so does the model."""
    hits = [items(recommend(package, Query(IDS[at - 3 : at], k=1))) == [IDS[at]] for at in range(3, NUM_ITEMS - 1)]
    assert sum(hits) > len(hits) / 2


def test_all_items_sum_to_one_and_more_than_all_is_all(package: Package) -> None:
    found = recommend(package, Query(["i3"], k=NUM_ITEMS))
    assert sorted(items(found)) == sorted(IDS)
    assert sum(torch.tensor([one.score for one in found]).exp()) == pytest.approx(1, abs=1e-5)
    assert recommend(package, Query(["i3"], k=10 * NUM_ITEMS)) == found
    assert recommend(package, Query(["i3"], k=1)) == found[:1]
    assert len(recommend(package, Query(["i3"]))) == 10


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_item_is_refused(package: Package, k: int) -> None:
    with pytest.raises(UserError, match=f"k is {k}, but must be at least 1"):
        recommend(package, Query(["i3"], k=k))


def test_seen_items_can_be_left_out(package: Package) -> None:
    """All of them, those that the window no longer reads as well; the others keep order and score."""
    history = ["i7", "i0", "i1", "i2", "i3", "i4", "i3"]
    whole = recommend(package, Query(history, k=NUM_ITEMS))
    found = recommend(package, Query(history, k=NUM_ITEMS, exclude_seen=True))
    assert items(found) == [one.item for one in whole if one.item not in history]
    assert [one.score for one in found] == [one.score for one in whole if one.item not in history]
    assert [one.rank for one in found] == list(range(1, NUM_ITEMS - 5))
    assert recommend(package, Query(IDS, exclude_seen=True)) == []


def test_a_long_history_is_read_from_its_newest_items(package: Package) -> None:
    history = [*IDS, *IDS, "i4", "i9", "i2", "i0"]
    assert recommend(package, Query(history)) == recommend(package, Query(history[-HISTORY:]))
    assert recommend(package, Query(history)) != recommend(package, Query(history[-HISTORY + 1 :]))


def test_the_order_of_the_history_counts(package: Package) -> None:
    assert recommend(package, Query(["i1", "i9"])) != recommend(package, Query(["i9", "i1"]))


def test_the_same_history_gives_the_same_answer(package: Package) -> None:
    first = recommend(package, Query(["i1", "i2"], k=7))
    recommend(package, Query(["a lamp"], texts=True))
    recommend(package, Query(IDS))
    assert recommend(package, Query(["i1", "i2"], k=7)) == first
    assert len(package.layout.known_items) == NUM_ITEMS, "texts leave nothing behind"


@pytest.mark.parametrize("history", [["nope"], ["i1", "I2"], ["i1", ""], ["i1", "i1 "]])
def test_an_unknown_item_is_named(package: Package, history: list[str]) -> None:
    with pytest.raises(UserError, match=f"item '{history[-1]}' is not among the 16 items of this model"):
        recommend(package, Query(history))


@pytest.mark.parametrize("texts", [False, True])
def test_an_empty_history_is_refused(package: Package, texts: bool) -> None:
    with pytest.raises(UserError, match="the history is empty: give at least one item"):
        recommend(package, Query([], texts=texts))


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_text_is_refused(package: Package, text: str) -> None:
    with pytest.raises(UserError, match="a text is empty"):
        recommend(package, Query(["a lamp", text], texts=True))


def test_the_title_of_an_item_says_the_same_as_its_identifier(text_only: Package) -> None:
    """Even items have a title and nothing else, and this model sees nothing but the text."""
    for history in (["i2"], ["i4", "i0", "i6"], ["i8"] * 9):
        titles = [f"  Thing {item[1:]} " for item in history]
        assert recommend(text_only, Query(titles, texts=True)) == recommend(text_only, Query(history))


def test_a_text_has_no_collaborative_vector(package: Package) -> None:
    without = replace(package, layout=replace(package.layout, item_column=False))
    assert recommend(package, Query(["Thing 2"], texts=True)) == recommend(without, Query(["i2"]))
    assert recommend(package, Query(["Thing 2"], texts=True)) != recommend(package, Query(["i2"]))


@pytest.mark.parametrize("text", ["x", "Ünïcödé 电影 🎬", "word " * 500, "a\x00b"])
def test_any_text_gives_recommendations(package: Package, text: str) -> None:
    found = recommend(package, Query([text, "Thing 1"], texts=True, k=3))
    assert len(found) == 3
    assert len({one.item for one in found}) == 3


def test_a_long_text_is_cut_like_a_sentence(package: Package) -> None:
    assert recommend(package, Query(["word " * 500], texts=True)) == recommend(
        package, Query(["word " * 400], texts=True)
    )


def test_texts_hide_no_item(package: Package) -> None:
    found = recommend(package, Query(["Thing 2"], texts=True, k=NUM_ITEMS, exclude_seen=True))
    assert sorted(items(found)) == sorted(IDS)


def test_queries_that_are_read_together_are_answered_one_by_one(package: Package) -> None:
    queries = [
        Query(["i3"], k=4),
        Query(["a lamp", "Thing 1"], texts=True, k=2),
        Query(["i0", "i1", "i2", "i3", "i4"], k=3, exclude_seen=True),
        Query(["Thing 2"], texts=True),
    ]
    answers = recommend_each(package, queries)
    for query, answer in zip(queries, answers, strict=True):
        alone = recommend(package, query)
        assert items(answer) == items(alone)
        assert [one.score for one in answer] == pytest.approx([one.score for one in alone], abs=1e-5)
    assert recommend_each(package, []) == []


def test_only_what_is_allowed_and_not_denied_is_recommended(package: Package) -> None:
    history = ["i3", "i4"]
    ranking = by_hand(package, history)
    allow, deny = frozenset({"i2", "i4", "i5", "i9", "unheard of"}), frozenset({"i5", "unheard of too"})
    found = recommend(package, Query(history, k=NUM_ITEMS, allow=allow, deny=deny, exclude_seen=True))
    expected = [(item, score) for item, score in ranking if item in {"i2", "i9"}]
    assert items(found) == [item for item, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert [one.rank for one in found] == [1, 2]
    assert recommend(package, Query(history, allow=frozenset())) == []
    assert len(recommend(package, Query(history, k=NUM_ITEMS, deny=deny))) == NUM_ITEMS - 1
