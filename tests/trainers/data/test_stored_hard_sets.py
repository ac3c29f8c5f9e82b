"""Stored hard sets against those made in memory: equal, made once, and made anew where something decides otherwise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainers.data.test_hard_negatives import ITEMS, random_data, text_vectors
from trainers.data import stored_hard_sets as module
from trainers.data.hard_negatives import HardSets, hard_sets
from trainers.data.stored_hard_sets import stored_hard_sets

DATA, TEXT = random_data(40), text_vectors()


def stored(folder: Path, **changed: Any) -> HardSets:
    arguments = {"share": 0.3, "encoder": "x", "made_of": "data and text", **changed}
    return stored_hard_sets(folder, DATA, TEXT, **arguments)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The share of every computation that was made."""
    calls: list[float] = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[2])
        return original(*arguments)

    original = module.hard_rows
    monkeypatch.setattr(module, "hard_rows", counted)
    return calls


def test_stored_sets_equal_those_made_in_memory(
    tmp_path: Path, made: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.data.hard_negatives.DISTANCES_AT_ONCE", 7 * ITEMS)  # several blocks
    expected = hard_sets(DATA, TEXT, share=0.3, encoder="x")
    for _ in range(2):
        found = stored(tmp_path)
        assert found.fingerprint == expected.fingerprint
        assert found.anchor_share == expected.anchor_share
        for item in range(ITEMS):
            assert np.array_equal(found.row(item), expected.row(item))
            drawn = [sets.sample(item, 8, np.random.default_rng(item)).tolist() for sets in (found, expected)]
            assert drawn[0] == drawn[1]
    assert made == [0.3]
    assert not found.items.flags.writeable
    assert not found.together.user_items.flags.writeable
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_decides_on_the_sets_is_in_the_name(
    tmp_path: Path, made: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for changed in ({}, {"share": 0.2}, {"encoder": "y"}, {"made_of": "other users"}):
        stored(tmp_path, **changed)
    for name in ("hard_negatives.TIE", "hard_negatives.LEAST_NEAREST", "item_factors.DIMENSIONS", "item_factors.SEED"):
        with monkeypatch.context() as patch:
            patch.setattr(f"trainers.data.{name}", 17)
            stored(tmp_path)
    assert len(made) == len(list(tmp_path.iterdir())) == 8


def test_several_at_once_make_them_once(tmp_path: Path, made: list[float]) -> None:
    with ThreadPoolExecutor(4) as pool:
        marks = {sets.fingerprint for sets in pool.map(lambda _: stored(tmp_path), range(4))}
    assert len(marks) == len(made) == len(list(tmp_path.iterdir())) == 1


def test_a_broken_computation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "fingerprint_of", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stored(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert stored(tmp_path).num_items == ITEMS


def test_data_without_any_hard_negative_can_be_stored(tmp_path: Path) -> None:
    """Where every trained item stands with all others, only those that nobody trained on are left, or none."""
    found = stored_hard_sets(
        tmp_path, random_data(400, items=7), text_vectors(7), share=0.3, encoder="x", made_of="dense"
    )
    assert found.num_items == 7
    assert all(set(found.row(item).tolist()) <= set(range(5)) for item in range(7))
