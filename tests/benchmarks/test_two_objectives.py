"""The benchmark of two objectives: what its score is a share of, and that finished searches are not run again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[bench]'")

from benchmarks import two_objectives
from benchmarks.two_objectives import BITS, KINDS, SPACE, WIDTHS, Truth, keep, kept, recommended, size
from search_spaces.mixed import Setting


def drawn(number: int, seed: int) -> list[Setting]:
    rng = np.random.default_rng(seed)
    levels = [2] * BITS + [len(KINDS), len(KINDS), len(WIDTHS)]
    return [SPACE.setting([*(float(rng.integers(top)) for top in levels), float(rng.random())]) for _ in range(number)]


def test_no_settings_have_more_than_the_true_front() -> None:
    truth, settings = Truth(0), drawn(3000, seed=1)
    found = truth.hypervolume(settings)
    assert 0.3 * truth.whole < found < truth.whole
    assert all(0 <= size(one) <= 1 / 1.1 + 1e-12 for one in settings)
    assert truth.reference == pytest.approx(np.median([truth(one) for one in settings]), abs=0.1)


def test_the_front_is_recommended() -> None:
    truth, settings = Truth(1), drawn(60, seed=2)
    front = recommended(settings, [truth(one) for one in settings], by_surrogate=False)
    assert truth.hypervolume(front) == pytest.approx(truth.hypervolume(settings))
    assert all(truth(one) >= truth(other) for one in front for other in settings if size(other) <= size(one))


def test_a_search_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_objectives, "shares", lambda *_: {10: 0.5})
    path = tmp_path / "kept.jsonl"
    assert kept(path) == {}
    keep(path, "ours", 3)
    assert kept(path) == {("ours", 3): {10: 0.5}}
    assert json.loads(path.read_text())["method"] == "ours"
