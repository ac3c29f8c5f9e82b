"""Files of items and interactions, and the folder that comes of them."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.cases import fuzzed, refusal
from tests.fuzz.mutations import arrays_near, bytes_near, json_near, tables_near, trees_near
from tests.trainers.data.files import (
    shop_items,
    shop_sequences,
    write_atomic,
    write_csv,
    write_jsonl,
    write_parquet,
)
from trainers.config import FilterConfig
from trainers.data.amazon import read_metadata, read_reviews
from trainers.data.prepare import prepare
from trainers.data.sources import Source
from trainers.data.splits import TemporalSplit
from trainers.data.store_format import MANIFEST, open_prepared
from trainers.data.tables import read_interactions, read_items, read_sequences

EVENTS = [("u2", "7", 30), ("u1", "a", 10), ("u2", "a", 5)]
ITEMS = [{"id": 7, "title": 'Seven, "7"', "category": ["A", "B"]}, {"id": "a", "title": "Café noir", "brand": "Acme"}]
SEQUENCES = [{"user": "u1", "items": [7, "a", 7], "ts": [1, 2, 2]}, {"user": 2, "items": ["a"], "ts": [5]}]
METADATA = [
    {"asin": "B1", "title": "Tea &amp; more", "brand": "Acme", "category": ["Food", "Tea"]},
    {"asin": "B2", "title": "<span>", "category": []},
]
REVIEWS = [
    {"reviewerID": "r1", "asin": "B1", "unixReviewTime": 1525000000, "overall": 5.0},
    {"reviewerID": "r1", "asin": "B9", "unixReviewTime": 1525000001},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def lines_near(folder: Path, rows: list[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    """JSON lines: rows with odd parts, or other bytes."""
    plain = write_jsonl(folder / "valid.jsonl", rows).read_bytes()
    odd = st.lists(st.one_of([json_near(row) for row in rows]), max_size=3).map(b"\n".join)
    return odd | bytes_near(plain)


def read_all(path: Path, folder: Path) -> None:
    """By whoever takes a file of this name, and whoever does not."""
    items = read_items(write_jsonl(folder / "whole.jsonl", ITEMS))
    for read in (read_items, lambda one: read_interactions(one, items), lambda one: read_sequences(one, items)):
        message = refusal(lambda read=read: read(path))  # type: ignore[misc]
        assert message is None or str(path) in message


@fuzzed()
@given(data=st.data(), is_zipped=st.booleans())
def test_json_lines(folder: Path, data: st.DataObject, is_zipped: bool) -> None:
    rows: list[dict[str, Any]] = [*ITEMS, *SEQUENCES, {"user": "u", "item": "a", "timestamp": 3}]
    content = data.draw(lines_near(folder, rows))
    path = folder / f"mine.jsonl{'.gz' if is_zipped else ''}"
    path.write_bytes(gzip.compress(content, 1) if is_zipped else content)
    read_all(path, folder)


@fuzzed()
@given(data=st.data())
def test_broken_archives(folder: Path, data: st.DataObject) -> None:
    valid = write_jsonl(folder / "valid.jsonl.gz", ITEMS).read_bytes()
    path = folder / "mine.jsonl.gz"
    path.write_bytes(data.draw(bytes_near(valid, valid + valid)))
    read_all(path, folder)


@fuzzed()
@given(data=st.data())
def test_comma_separated(folder: Path, data: st.DataObject) -> None:
    events = write_csv(folder / "valid.csv", ["user", "item", "timestamp"], EVENTS).read_bytes()
    items = write_csv(folder / "valid.csv", ["id", "title", "brand"], [("7", 'Seven, "7"', ""), ("a", "b\nc", "")])
    path = folder / "mine.csv"
    path.write_bytes(data.draw(bytes_near(events, items.read_bytes())))
    read_all(path, folder)


@fuzzed()
@given(data=st.data())
def test_atomic_files(folder: Path, data: st.DataObject) -> None:
    header = ["user_id:token", "item_id:token", "timestamp:float"]
    events = write_atomic(folder / "valid.inter", header, EVENTS).read_bytes()
    items = write_atomic(folder / "valid.item", ["item_id:token", "title:token_seq"], [("7", "x"), ("a", "")])
    path = folder / "mine.inter"
    path.write_bytes(data.draw(bytes_near(events, items.read_bytes())))
    read_all(path, folder)


@fuzzed()
@given(data=st.data())
def test_parquet(folder: Path, data: st.DataObject) -> None:
    columns = data.draw(
        st.sampled_from(
            [
                {"user": ["u", "v"], "item": ["7", "a"], "timestamp": [3, 4]},
                {"user": ["u", "v"], "items": [["7"], ["a", "a"]], "ts": [[1], [2, 3]]},
                {"id": ["7", "a"], "title": ["x", "y"], "category": [["A"], ["B", "C"]]},
            ]
        )
    )
    valid = pq.read_table(write_parquet(folder / "valid.parquet", columns))
    path = folder / "mine.parquet"
    path.write_bytes(data.draw(tables_near(valid, folder / "scratch.parquet")))
    read_all(path, folder)


@fuzzed()
@given(data=st.data())
def test_amazon(folder: Path, data: st.DataObject) -> None:
    items = write_jsonl(folder / "meta.json", METADATA)
    path = folder / "mine.json"
    for rows, read in ((METADATA, read_metadata), (REVIEWS, lambda one: read_reviews(one, read_metadata(items)))):
        path.write_bytes(data.draw(lines_near(folder, rows)))
        message = refusal(lambda read=read: read(path))  # type: ignore[misc]
        assert message is None or str(path) in message


@fuzzed()
@given(data=st.data())
def test_what_is_read_is_prepared_or_refused(folder: Path, data: st.DataObject) -> None:
    """From the files to the stored folder, and back out of it."""
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    items = data.draw(trees_near(shop_items()))
    sequences = data.draw(trees_near(shop_sequences()) | st.just(shop_sequences()))
    (folder / "items.jsonl").write_bytes(_as_lines(items))
    (folder / "sequences.jsonl").write_bytes(_as_lines(sequences))
    source = Source(items=folder / "items.jsonl", sequences=folder / "sequences.jsonl")
    temporal = data.draw(st.sampled_from([None, TemporalSplit(0.1, 0.1)]))
    if refusal(lambda: prepare("s", source, FilterConfig(), folder / "prepared", temporal=temporal)) is None:
        open_prepared(folder / "prepared")


def _as_lines(rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode() if isinstance(rows, list) else b""


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Path:
    """With time stamps and a split in time: with every file that there can be."""
    users = [
        {**one, "ts": [step * 100 + at for step in range(8)]} for at, one in enumerate(shop_sequences(40, length=8))
    ]
    source = Source(
        items=write_jsonl(folder / "shop.jsonl", shop_items()), sequences=write_jsonl(folder / "users.jsonl", users)
    )
    prepare("shop", source, FilterConfig(), folder / "shop", temporal=TemporalSplit(0.3, 0.3))
    return folder / "shop"


def near(path: Path, scratch: Path) -> st.SearchStrategy[bytes]:
    if path.suffix == ".npy":
        return arrays_near(np.load(path), scratch)
    if path.suffix == ".parquet":
        return tables_near(pq.read_table(path), scratch)
    return json_near(json.loads(path.read_text()))


PARTS = (MANIFEST, "offsets.npy", "items.npy", "timestamps.npy", "held-out.npy", "users.parquet", "catalogue.parquet")


@pytest.mark.parametrize("part", PARTS)
@fuzzed(few=10)
@given(data=st.data())
def test_a_prepared_folder(prepared: Path, folder: Path, part: str, data: st.DataObject) -> None:
    whole = (prepared / part).read_bytes()
    broken = data.draw(near(prepared / part, folder / "scratch.npy"))
    try:
        (prepared / part).write_bytes(broken)
        refusal(lambda: open_prepared(prepared))
    finally:
        (prepared / part).write_bytes(whole)


def test_the_readers_take_what_is_whole(prepared: Path, folder: Path) -> None:
    """Else all of the above could be refused for another reason than the one meant."""
    assert open_prepared(prepared).num_users == 40
    reads: list[Callable[[], object]] = [
        lambda: read_items(write_jsonl(folder / "a.jsonl", ITEMS)),
        lambda: read_metadata(write_jsonl(folder / "m.json", METADATA)),
    ]
    assert [refusal(read) for read in reads] == [None, None]
