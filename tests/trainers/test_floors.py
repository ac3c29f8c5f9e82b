"""Every floor against sorting by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.trainers.test_ranks import sequences
from trainers.baselines.floors import cheap_floors, floors
from trainers.baselines.item_knn import item_knn
from trainers.baselines.markov import markov
from trainers.baselines.popularity import popularity
from trainers.baselines.repeat_last import repeat_last
from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import Setting, evaluate_scores


@pytest.fixture
def data() -> SequenceData:
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 12, size=generator.integers(4, 9)).tolist() for _ in range(30)]
    return sequences(*rows, items=12)


def literal_rank(data: SequenceData, user: int, split: Split, name: str, exclude_seen: bool) -> float:
    """Mean over ties of the target's place, from the definition alone."""
    row = data.sequence(user).tolist()
    cut = len(row) - (2 if split == "validation" else 1)
    history, target = row[:cut], row[cut]
    training = [data.sequence(u).tolist()[:-2] for u in range(data.num_users)]
    count = [sum(one.count(item) for one in training) for item in range(12)]
    score: list[tuple[float, ...]] = [(float(one),) for one in count]
    if name == "repeat-last":
        score[history[-1]] = (10.0**6,)
    if name == "markov":
        steps = [pair for one in training for pair in pairwise(one)]
        score = [(float(steps.count((history[-1], item))), float(count[item])) for item in range(12)]
    if name == "item-knn":
        takers = [{user for user, one in enumerate(training) if item in one} for item in range(12)]
        score = [
            (round(sum(cosine(takers[item], takers[seen]) for seen in set(history) - {item}), 9), float(count[item]))
            for item in range(12)
        ]
    candidates = [item for item in range(12) if item == target or not (exclude_seen and item in history)]
    above = sum(score[item] > score[target] for item in candidates)
    level = sum(score[item] == score[target] for item in candidates)
    return above + (level + 1) / 2


def cosine(left: set[int], right: set[int]) -> float:
    """Of two sets as vectors of zeros and ones."""
    return len(left & right) / (len(left) * len(right)) ** 0.5 if left and right else 0.0


@pytest.mark.parametrize("split", ["validation", "test"])
def test_all_floors_equal_their_definition(data: SequenceData, split: Split) -> None:
    found = floors(data, split)
    names = ["popularity", "repeat-last", "item-knn", "markov"]
    assert [(floor.name, floor.exclude_seen) for floor in found] == [
        (name, exclude_seen) for exclude_seen in (False, True) for name in names
    ]
    cheap = cheap_floors(data, split)
    assert [floor.name for floor in cheap] == names[:2] * 2
    same = [found[place] for place in (0, 1, 4, 5)]
    assert [one.ranks.rank.tolist() for one in cheap] == [one.ranks.rank.tolist() for one in same]
    for floor in found:
        expected = [literal_rank(data, user, split, floor.name, floor.exclude_seen) for user in range(30)]
        assert floor.ranks.rank.tolist() == expected


def test_popularity_counts_the_users_trained_on(data: SequenceData) -> None:
    few = data.select_users(np.array([3, 4]))
    scores = popularity(few)(np.array([0]), ("test",))[0][0]
    counted = np.bincount(np.concatenate([data.training(3), data.training(4)]), minlength=12)
    assert scores.tolist() == counted.tolist()
    floor = floors(data, "test", counted_on=few)[0]
    assert floor.ranks.popularity.tolist() == counted[floor.ranks.target].tolist()


def test_held_out_items_do_not_reach_the_floors(data: SequenceData) -> None:
    """Only the validation item may: it is history when the test item is ranked."""
    items = data.items.copy()
    items[data.offsets[1:] - 1] = (
        items[data.offsets[1:] - 1] + 1
    ) % 12  # counts change, which a permutation would hide
    changed = SequenceData(data.offsets, items, data.user_ids, data.catalogue, data.fingerprint)
    users = np.arange(30)
    both: tuple[Split, ...] = ("validation", "test")
    for ours, theirs in (
        (popularity(data), popularity(changed)),
        (repeat_last(data, data), repeat_last(changed, changed)),
        (item_knn(data, data), item_knn(changed, changed)),
        (markov(data, data), markov(changed, changed)),
    ):
        for scores, same in zip(ours(users, both), theirs(users, both), strict=True):
            assert scores.equal(same)


def test_repeat_last_finds_a_repeat() -> None:
    data = sequences([0, 1, 2, 2], [3, 3, 3, 0], items=4)
    (ranks,) = evaluate_scores(data, [Setting("test")], repeat_last(data, data))
    assert ranks.rank[0] == 1
    assert ranks.repeat.tolist() == [True, False]
