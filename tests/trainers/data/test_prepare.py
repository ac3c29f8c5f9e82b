"""Preparation end to end: against a literal version, on supplied data, twice, at once, damaged and refused."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.supplied import supplied_folder
from tests.trainers.data.files import shop_items, shop_sequences, write_csv, write_jsonl
from trainers.config import FilterConfig
from trainers.data.errors import DataError
from trainers.data.prepare import open_or_prepare, prepare
from trainers.data.sources import Source
from trainers.data.store_format import Manifest, open_prepared, read_manifest

FILTERS = FilterConfig()


@pytest.fixture
def shop(tmp_path: Path) -> Source:
    return Source(
        items=write_jsonl(tmp_path / "items.jsonl", shop_items()),
        sequences=write_jsonl(tmp_path / "sequences.jsonl.gz", shop_sequences()),
    )


@pytest.mark.parametrize("timed", [True, False])
def test_prepared_equals_a_literal_version(tmp_path: Path, timed: bool) -> None:
    draw = random.Random(7)
    catalogue = [f"i{n}" for n in range(40)]
    draw.shuffle(catalogue)
    titles = {item: "" if draw.random() < 0.1 else f"Thing {item}" for item in catalogue}
    events = [
        (f"u{draw.randrange(60)}", draw.choice(catalogue), draw.randrange(12) if timed else 0) for _ in range(500)
    ]
    header = ["user", "item", "timestamp"] if timed else ["user", "item"]
    source = Source(
        items=write_csv(tmp_path / "items.csv", ["id", "title"], titles.items()),
        interactions=write_csv(tmp_path / "events.csv", header, [event[: len(header)] for event in events]),
    )
    manifest = prepare("draw", source, FILTERS, tmp_path / "draw")
    data = open_prepared(tmp_path / "draw")

    left = [event for n, event in enumerate(events) if not (timed and event in events[:n]) and titles[event[1]]]
    popularity = Counter(item for _, item, _ in left)
    kept_items = [item for item in catalogue if popularity[item] >= 4]
    left = [event for event in left if event[1] in kept_items]
    histories = defaultdict(list)
    for user, item, time in left:
        histories[user].append((time, item))
    expected = {
        user: [item for _, item in sorted(history, key=lambda pair: pair[0])]  # stable: ties keep file order
        for user, history in histories.items()
        if len(history) >= 4
    }
    assert len(expected) < 60
    assert any(len({time for time, _ in history}) < len(history) for history in histories.values())
    assert list(data.catalogue.ids) == kept_items
    assert set(data.user_ids) == set(expected)
    for user, identifier in enumerate(data.user_ids):
        assert [data.catalogue.ids[item] for item in data.sequence(user)] == expected[identifier]
    assert data.catalogue.sentences == tuple(f"title Thing {item}" for item in kept_items)
    assert manifest.counts[-1].interactions == sum(map(len, expected.values())) == len(data.items)
    assert (tmp_path / "draw" / "timestamps.npy").exists() == timed
    if timed:
        times = np.load(tmp_path / "draw" / "timestamps.npy")
        assert all((np.diff(times[a:b]) >= 0).all() for a, b in pairwise(data.offsets))


def test_arrays_are_memory_mapped_and_typed(shop: Source, tmp_path: Path) -> None:
    prepare("shop", shop, FILTERS, tmp_path / "shop")
    data = open_prepared(tmp_path / "shop")
    assert isinstance(data.items, np.memmap)
    assert isinstance(data.offsets, np.memmap)
    assert (data.items.dtype, data.offsets.dtype) == (np.int32, np.int64)
    assert data.catalogue.sentences[:2] == ("title Thing 0", "title Thing 1 brand Acme")
    assert read_manifest(tmp_path / "shop").attributes == ("title", "brand")


def test_sequences_and_interactions_give_the_same_fingerprint(shop: Source, tmp_path: Path) -> None:
    rows = [
        (row["user"], item, time)
        for row in shop_sequences()
        for item, time in zip(row["items"], row["ts"], strict=True)
    ]
    events = write_csv(tmp_path / "events.csv", ["user_id", "item_id", "timestamp"], rows)
    first = prepare("a", shop, FILTERS, tmp_path / "a")
    second = prepare("b", Source(items=shop.items, interactions=events), FILTERS, tmp_path / "b")
    assert first.fingerprint == second.fingerprint


def changed_title(items: list[dict[str, Any]], _: list[dict[str, Any]]) -> None:
    items[3]["title"] = "Other"


def swapped_items(_: list[dict[str, Any]], sequences: list[dict[str, Any]]) -> None:
    sequences[0]["items"][:2] = reversed(sequences[0]["items"][:2])


def other_item_order(items: list[dict[str, Any]], _: list[dict[str, Any]]) -> None:
    items.reverse()


@pytest.mark.parametrize("change", [changed_title, swapped_items, other_item_order])
def test_fingerprint_tells_changed_content(
    shop: Source, tmp_path: Path, change: Callable[[list[dict[str, Any]], list[dict[str, Any]]], None]
) -> None:
    before = prepare("a", shop, FILTERS, tmp_path / "a").fingerprint
    items, sequences = shop_items(), shop_sequences()
    change(items, sequences)
    source = Source(
        items=write_jsonl(tmp_path / "items2.jsonl", items), sequences=write_jsonl(tmp_path / "s2.jsonl", sequences)
    )
    assert prepare("b", source, FILTERS, tmp_path / "b").fingerprint != before


def test_fingerprint_tells_other_filters_that_drop_nothing(shop: Source, tmp_path: Path) -> None:
    loose = FilterConfig(min_item_interactions=0)
    first = prepare("a", shop, FILTERS, tmp_path / "a")
    second = prepare("b", shop, loose, tmp_path / "b")
    assert first.counts[-1].interactions == second.counts[-1].interactions
    assert first.fingerprint != second.fingerprint


def test_preparing_again_keeps_what_is_there_and_replaces_only_on_demand(shop: Source, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    first = prepare("shop", shop, FILTERS, folder)
    (folder / "tokens-x").mkdir()
    assert prepare("shop", shop, FILTERS, folder) == first
    assert (folder / "tokens-x").is_dir()
    other = FilterConfig(min_user_interactions=5)
    with pytest.raises(DataError, match=r"shop: already holds another data set named 'shop'\. .*--replace"):
        prepare("shop", shop, other, folder)
    assert read_manifest(folder) == first
    mapped = open_prepared(folder)
    prepare("shop", shop, other, folder, replace=True)
    assert read_manifest(folder).filters == other
    assert not (folder / "tokens-x").exists()
    assert mapped.items[0] == 0  # the old memory map stays readable
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_foreign_folder_is_never_removed(shop: Source, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="is in the way and no prepared data set"):
        prepare("mine", shop, FILTERS, folder, replace=True)
    assert (folder / "thesis.tex").exists()


def test_several_at_once_end_with_one_intact_data_set(shop: Source, tmp_path: Path) -> None:
    def run(_: int) -> Manifest:
        return prepare("shop", shop, FILTERS, tmp_path / "shop")

    with ThreadPoolExecutor(6) as pool:
        marks = {manifest.fingerprint for manifest in pool.map(run, range(6))}
    assert marks == {open_prepared(tmp_path / "shop").fingerprint}


@pytest.mark.parametrize(
    "victim", ["items.npy", "offsets.npy", "timestamps.npy", "users.parquet", "catalogue.parquet", "manifest.json"]
)
@pytest.mark.parametrize("how", ["cut", "gone", "flipped"])
def test_damage_is_told_and_mended_by_replace(shop: Source, tmp_path: Path, victim: str, how: str) -> None:
    folder = tmp_path / "shop"
    prepare("shop", shop, FILTERS, folder)
    path = folder / victim
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        # A letter or number in the content of each file, never a byte of padding that nobody reads.
        at = content.rindex(b'"fingerprint": "') + 20 if victim == "manifest.json" else len(content) - 4
        if victim.endswith(".parquet"):
            at = content.index(b"u1" if victim == "users.parquet" else b"Thing") + 1
        content[at] ^= 1
        path.write_bytes(content)
    with pytest.raises(DataError):
        open_prepared(folder)
    if victim == "manifest.json" and how == "gone":
        return
    with pytest.raises(DataError, match="--replace"):
        prepare("shop", shop, FILTERS, folder)
    prepare("shop", shop, FILTERS, folder, replace=True)
    assert open_prepared(folder).num_users == 15


def test_another_format_is_refused(shop: Source, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    prepare("shop", shop, FILTERS, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(DataError, match=r"has format 99, this version reads 1\. Prepare it again with --replace"):
        open_prepared(folder)


def test_three_users_are_too_few(tmp_path: Path) -> None:
    source = Source(
        items=write_jsonl(tmp_path / "items.jsonl", shop_items()),
        sequences=write_jsonl(tmp_path / "sequences.jsonl", shop_sequences(users=3)),
    )
    with pytest.raises(DataError, match=r"at least 10 users are needed for a score with a standard error"):
        prepare("few", source, FilterConfig(min_item_interactions=0), tmp_path / "few")
    with pytest.raises(DataError, match=r"sequences\.jsonl: 0 users .* \(read: 3 users, 15 items; .* Give more data"):
        prepare("few", source, FILTERS, tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_items_without_titles_are_told(shop: Source, tmp_path: Path) -> None:
    untitled = write_jsonl(tmp_path / "u.jsonl", [{**item, "title": " "} for item in shop_items()])
    source = Source(items=untitled, sequences=shop.sequences)
    with pytest.raises(DataError, match=r"u\.jsonl: no item has a title\. Fill a 'title' column"):
        prepare("x", source, FILTERS, tmp_path / "x")
    with pytest.raises(DataError, match=r"u\.jsonl, row 1: item 'i0' has no text at all\. Fill one of title, brand"):
        prepare("x", source, FilterConfig(require_title=False), tmp_path / "x")


def test_open_or_prepare_opens_refuses_and_names_the_remedy(shop: Source, tmp_path: Path) -> None:
    folder, downloads = tmp_path / "shop", tmp_path / "downloads"
    with pytest.raises(DataError, match=r"no data set 'shop'\. Prepare it: mixrec-automl data prepare --name shop"):
        open_or_prepare("shop", FILTERS, folder, downloads)
    made = prepare("shop", shop, FILTERS, folder)
    assert open_or_prepare("shop", FILTERS, folder, downloads).fingerprint == made.fingerprint
    with pytest.raises(
        DataError, match=r"'shop' was prepared with min_item_interactions=4 \(wanted 2\)\. Set data\.filt"
    ):
        open_or_prepare("shop", FilterConfig(min_item_interactions=2), folder, downloads)


@pytest.mark.supplied_data
@pytest.mark.parametrize("name", ["scientific_small", "scientific_unisrec", "pantry_unisrec", "games_2018"])
def test_supplied_data_give_the_counts_of_their_own_statistics(tmp_path: Path, name: str) -> None:
    folder = supplied_folder(name)
    source = Source(items=folder / "items.jsonl.gz", sequences=folder / "sequences.jsonl.gz")
    manifest = prepare(name, source, FILTERS, tmp_path / name)
    stats = json.loads((folder / "stats.json").read_text())
    read, left = manifest.counts[0], manifest.counts[-1]
    assert (read.users, read.items, read.interactions) == (stats["users"], stats["items_listed"], stats["inter"])
    expected = stats["filt_once"]
    assert (left.users, left.items, left.interactions) == (expected["users"], expected["items"], expected["inter"])
    users, _ = open_prepared(tmp_path / name).training_pairs()
    assert len(users) == expected["train_inter"]
