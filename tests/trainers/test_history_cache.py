"""Scores from cached keys and values against those of whole histories, and what the cache keeps and forgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.tiny_package import NUM_ITEMS, make_package
from trainers.config import ModelConfig
from trainers.data.rows import Rows
from trainers.evaluate import score_histories
from trainers.history_cache import HistoryCache
from trainers.model.kv_cache import CachedRow, can_cache, read_rows
from trainers.model.mixrec import MixRec
from trainers.package import Package, read_package

ALL = 2**30
LONG = [3, 0, 15, 7, 7, 2, 9]
MODELS: list[tuple[Family, dict[str, Any]]] = [
    *((family, {"collaborative_columns": "user+item", "leading_bos": True}) for family in FAMILIES),
    ("llama", {"collaborative_columns": "none"}),
    ("opt", {"kind": "mixrec_base"}),
    ("gpt2", {"kind": "llmrec"}),
    ("llama", {"second_mask": "causal", "context_expert": "lora"}),
]


@pytest.fixture(scope="module", params=MODELS, ids=lambda pair: f"{pair[0]}-{'-'.join(map(str, pair[1].values()))}")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    family, model = request.param
    return read_package(make_package(tmp_path_factory.mktemp("made"), family, model).package)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(make_package(tmp_path_factory.mktemp("one")).package)


def score(cache: HistoryCache, package: Package, histories: Sequence[Sequence[int]]) -> Tensor:
    return cache.score(package.model, package.layout, histories)


def whole(package: Package, histories: Sequence[Sequence[int]]) -> Tensor:
    return score_histories(package.model, package.layout, histories, [-1] * len(histories))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert expected.std() > 1e-3


def test_a_history_that_grows_scores_as_if_read_whole(package: Package) -> None:
    cache = HistoryCache(ALL)
    for length in (1, 2, 4, 6, 7):
        assert_same(score(cache, package, [LONG[:length]]), whole(package, [LONG[:length]]))
    assert cache.outcomes == {"known": 0, "continued": 4, "new": 1}
    assert score(cache, package, [LONG]).equal(score(cache, package, [LONG]))
    assert cache.outcomes["known"] == 2


def test_known_continued_and_new_histories_are_scored_together(package: Package) -> None:
    cache = HistoryCache(ALL)
    score(cache, package, [[1, 2, 3], [4], [6, 5]])
    histories = [[8, 9], [1, 2, 3, 4, 5], [6, 5], [4, 1], [10], [1, 2, 3, 4, 5], [1, 3, 2]]
    assert_same(score(cache, package, histories), whole(package, histories))
    assert cache.outcomes == {"known": 1, "continued": 2, "new": 3 + 3}, "equal histories are read once"


def test_random_walks_through_a_small_cache_are_exact(one: Package) -> None:
    """Whatever was forgotten meanwhile."""
    draw = np.random.default_rng(3)
    cache = HistoryCache(8_000)
    users: list[list[int]] = [[int(draw.integers(NUM_ITEMS))] for _ in range(6)]
    for _ in range(30):
        asked = draw.choice(6, size=3)
        for user in set(asked.tolist()):
            users[user] = (users[user] + draw.integers(NUM_ITEMS, size=draw.integers(3)).tolist())[-7:]
        histories = [users[user] for user in asked]
        assert_same(score(cache, one, histories), whole(one, histories))
        assert 0 <= cache.bytes <= 8_000
    assert min(cache.outcomes.values()) > 3
    assert cache.outcomes["new"] > 6, "some were forgotten"


def test_the_least_recently_used_is_forgotten_first(one: Package) -> None:
    lengths = one.layout.item_tokens.lengths
    a, b, c, d = ([int(item)] for item in np.flatnonzero(lengths == np.bincount(lengths).argmax())[:4])
    single = HistoryCache(ALL)
    score(single, one, [a])
    cache = HistoryCache(3 * single.bytes)
    for history in (a, b, c, a, d):
        score(cache, one, [history])
    assert cache.bytes == 3 * single.bytes
    score(cache, one, [a, c, d])
    assert cache.outcomes == {"known": 1 + 3, "continued": 0, "new": 4}
    score(cache, one, [b])
    assert cache.outcomes["new"] == 5


def test_what_is_too_large_is_scored_and_not_kept(one: Package) -> None:
    cache = HistoryCache(10)
    assert_same(score(cache, one, [LONG, [1]]), whole(one, [LONG, [1]]))
    assert cache.bytes == 0


def test_a_longer_history_takes_the_place_of_its_beginning(one: Package) -> None:
    grown, direct = HistoryCache(ALL), HistoryCache(ALL)
    for length in range(1, 6):
        score(grown, one, [LONG[:length]])
    score(direct, one, [LONG[:5]])
    assert grown.bytes == direct.bytes


def test_a_package_with_a_cache_answers_as_one_without(tmp_path: Path) -> None:
    folder = make_package(tmp_path).package
    cached, plain = read_package(folder, cache_bytes=ALL), read_package(folder)
    assert plain.cache is None
    assert cached.cache is not None
    histories = [np.array(LONG[:length], dtype=np.int32) for length in (1, 2, 3, 4, 6)]  # the window is of 4 items
    for history in histories:
        assert_same(cached.score([history]), plain.score([history]))
    assert cached.cache.outcomes == {"known": 0, "continued": 3, "new": 2}
    assert_same(cached.score_texts([["Thing 1", "a lamp"]]), plain.score_texts([["Thing 1", "a lamp"]]))
    assert sum(cached.cache.outcomes.values()) == 5, "texts are not kept"


def test_the_control_with_masks_of_its_own_is_not_cached(tmp_path: Path) -> None:
    assert not can_cache(ModelConfig(second_mask="causal+columns"))
    folder = make_package(tmp_path, model={"second_mask": "causal+columns"}).package
    assert read_package(folder, cache_bytes=ALL).cache is None


def test_what_is_mostly_new_is_read_anew_and_passes_are_bounded(one: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one item, and then everything after it, would make masks without bound."""
    monkeypatch.setattr("trainers.history_cache.TOKENS_AT_ONCE", 30)
    passes: list[int] = []
    read = read_rows

    def counted(model: MixRec, rows: Rows, lengths: Sequence[int], past: Sequence[CachedRow]) -> list[CachedRow]:
        if past:
            passes.append(sum(lengths) + sum(row.tokens for row in past))
        return read(model, rows, lengths, past)

    monkeypatch.setattr("trainers.history_cache.read_rows", counted)
    cache = HistoryCache(ALL)
    score(cache, one, [[item] for item in range(10)])
    long = [[item, *LONG] for item in range(10)]
    assert_same(score(cache, one, long), whole(one, long))
    assert (cache.outcomes["continued"], passes) == (0, [])
    grown = [[*history, 11] for history in long]
    assert_same(score(cache, one, grown), whole(one, grown))
    assert cache.outcomes["continued"] == 10
    longest = max(int(one.layout.item_tokens.lengths[history].sum()) + len(history) for history in grown)
    assert len(passes) > 1
    assert max(passes) <= max(30, longest + 1)
