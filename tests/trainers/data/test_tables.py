"""Every format gives the same tables, and every kind of bad input one line that names file, row and remedy."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.trainers.data.files import write_atomic, write_csv, write_jsonl, write_parquet
from trainers.data.errors import DataError
from trainers.data.tables import ItemTable, read_interactions, read_items, read_sequences

EVENTS = [("u2", "7", 30), ("u1", "a", 10), ("u2", "a", 5), ("u1", "7", 10)]
ITEMS = [
    {"id": 7, "title": 'Seven, "7"', "category": ["A", "B"]},
    {"id": "a", "title": " Café\tnoir ", "brand": "Acme"},
]


@pytest.fixture
def items(tmp_path: Path) -> ItemTable:
    return read_items(write_jsonl(tmp_path / "items.jsonl", ITEMS))


def write_events(path: Path) -> Path:
    header = ["user", "item", "timestamp"]
    name = path.name.removesuffix(".gz")
    if name.endswith(".inter"):
        return write_atomic(path, ["user_id:token", "item_id:token", "rating:float", "timestamp:float"],
                            [(user, item, 3, time) for user, item, time in EVENTS])  # fmt: skip
    if name.endswith(".csv"):
        return write_csv(path, header, EVENTS)
    if name.endswith(".parquet"):
        return write_parquet(path, dict(zip(header, map(list, zip(*EVENTS, strict=True)), strict=True)))
    return write_jsonl(path, [dict(zip(header, event, strict=True)) for event in EVENTS])


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.parquet", "e.inter", "e.jsonl", "e.jsonl.gz"])
def test_interactions_are_the_same_in_every_format(tmp_path: Path, items: ItemTable, name: str) -> None:
    read = read_interactions(write_events(tmp_path / name), items)
    assert read.user_ids == ["u2", "u1"]
    assert read.users.tolist() == [0, 1, 0, 1]
    assert [items.ids[item] for item in read.items] == [item for _, item, _ in EVENTS]
    assert read.timestamps is not None
    assert read.timestamps.tolist() == [30, 10, 5, 10]


def test_items_are_the_same_in_every_format(tmp_path: Path, items: ItemTable) -> None:
    header = ["id", "title", "brand", "category", "price"]
    rows = [("7", 'Seven, "7"', "", "A B", 1.5), ("a", "Café noir", "Acme", "", 2)]
    files = [
        write_csv(tmp_path / "items.csv", header, rows),
        write_parquet(tmp_path / "items.parquet", dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))),
        write_atomic(tmp_path / "x.item", ["item_id:token", *(f"{name}:token_seq" for name in header[1:])], rows),
    ]
    assert items.ids == ["7", "a"]
    assert items.rows == [1, 2]
    expected = {"title": ['Seven, "7"', "Café noir"], "brand": ["", "Acme"], "category": ["A B", ""]}
    assert items.attributes == expected
    assert list(items.attributes) == ["title", "brand", "category"]
    for path in files:
        assert read_items(path).attributes == expected
        assert read_items(path).ids == items.ids


def test_chosen_attributes_keep_their_order_and_columns(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "items.csv", ["id", "name", "maker"], [("1", "Pen", "Acme")])
    table = read_items(path, {"brand": ("maker",), "title": ("name",)})
    assert list(table.attributes.items()) == [("brand", ["Acme"]), ("title", ["Pen"])]
    with pytest.raises(DataError, match=r"items.csv: no column 'colour' for attribute 'colour'"):
        read_items(path, {"colour": ("colour",)})


def test_sequences_and_interactions_agree(tmp_path: Path, items: ItemTable) -> None:
    rows = [
        {"user": 1, "items": [7, "a", 7], "ts": [1, 1, 2.5]},
        {"user": "x", "items": []},
        {"user": 2, "items": ["a"]},
    ]
    rows[1]["ts"], rows[2]["ts"] = [], [9]
    read = read_sequences(write_jsonl(tmp_path / "s.jsonl.gz", rows), items)
    assert read.user_ids == ["1", "x", "2"]
    assert read.users.tolist() == [0, 0, 0, 2]
    assert read.items.tolist() == [0, 1, 0, 1]
    assert read.timestamps is not None
    assert read.timestamps.tolist() == [1, 1, 2.5, 9]


def test_parquet_time_stamps_become_unix_seconds(tmp_path: Path, items: ItemTable) -> None:
    times = [datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)]
    path = write_parquet(tmp_path / "e.parquet", {"user": [1, 1], "item": [7, 7], "timestamp": times})
    timestamps = read_interactions(path, items).timestamps
    assert timestamps is not None
    assert timestamps.tolist() == [86400, 0.5]


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_read(tmp_path: Path, items: ItemTable) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,item\r\nu,7\r\n\r\nu,a\r\n")
    assert read_interactions(path, items).items.tolist() == [0, 1]
    assert read_interactions(path, items).timestamps is None


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


BAD_SEQUENCES = {
    "unknown item": ("s.jsonl", lines({"user": 1, "items": [7]}, {"user": 2, "items": ["zz"]}),
                     r"s\.jsonl, row 2: item 'zz' is not in .*items\.jsonl\. Add it there or remove"),
    "unsorted": ("s.jsonl", lines({"user": 1, "items": [7, 7], "ts": [5, 4]}),
                 r"row 1: time stamp 2 \(4\) is before time stamp 1 \(5\)\. Sort items and 'ts' together"),
    "lengths differ": ("s.jsonl", lines({"user": 1, "items": [7, 7], "ts": [5]}), "row 1: 2 items but 1 time stamps"),
    "some timed": ("s.jsonl", lines({"user": 1, "items": [7], "ts": [5]}, {"user": 2, "items": [7]}),
                   r"row 2: has no 'ts' unlike the rows before"),
    "repeated user": ("s.jsonl", lines({"user": 1, "items": [7]}, {"user": "1", "items": [7]}),
                      "row 2: user '1' was already in row 1. Join"),
    "no items": ("s.jsonl", lines({"user": 1}), r"row 1: no column 'items'"),
    "items no list": ("s.jsonl", lines({"user": 1, "items": "7"}), r"row 1: 'items' is '7', not a list"),
    "null item": ("s.jsonl", lines({"user": 1, "items": [None]}), r"row 1: 'items' is missing or empty"),
    "user bool": ("s.jsonl", lines({"user": True, "items": [7]}), r"row 1: 'user' is True. Give a whole number"),
    "no user": ("s.jsonl", lines({"items": [7]}), r"row 1: no column 'user' or 'user_id'; there is 'items'"),
    "malformed": ("s.jsonl", lines({"user": 1, "items": [7]}) + b"{oops\n", r"row 2: malformed JSON .* on each line"),
    "deep": ("s.jsonl", b"[" * 200_000, r"row 1: malformed JSON"),
    "not an object": ("s.jsonl", b"[1]\n", r"row 1: not a JSON object"),
    "half a surrogate": ("s.jsonl", b'{"user": "\\ud800", "items": [7]}\n', r"row 1: holds half a surrogate pair"),
    "encoding": ("s.jsonl", b'{"user": "a", "items": [7]}\n{"user": "caf\xe9"}\n', r"row 2: not UTF-8 .* Convert"),
    "empty": ("s.jsonl", b"", r"s\.jsonl: holds no interactions"),
    "infinite time": ("s.jsonl", b'{"user": 1, "items": [7], "ts": [Infinity]}', r"row 1: 'ts' is inf, too large"),
    "broken gzip": ("s.jsonl.gz", gzip.compress(lines(*({"user": n, "items": [7] * n} for n in range(999))))[:-9],
                    r"s\.jsonl\.gz, row \d+: the gzip stream is broken here .* Copy the file again"),
    "not gzip": ("s.jsonl.gz", b"{}\n", r"s\.jsonl\.gz: is not a gzip file although"),
    "format": ("s.txt", b"x", r"s\.txt: unknown format\. Give a \.jsonl, \.json, \.csv"),
    "broken parquet": ("s.parquet", b"PAR1xxxxPAR1", r"s\.parquet, row 1: cannot be read as Parquet"),
}  # fmt: skip

BAD_INTERACTIONS = {
    "missing column": ("e.csv", b"user,thing\n1,7\n", r"e\.csv, row 2: no column 'item' or 'item_id'; there is 'user'"),
    "unknown item": ("e.csv", b"user,item\n1,7\n1,8\n", r"e\.csv, row 3: item '8' is not in .*items\.jsonl"),
    "no header": ("e.csv", b"", r"e\.csv: has no header"),
    "header only": ("e.csv", b"user,item\n", r"e\.csv: holds no interactions"),
    "fields": ("e.csv", b"user,item\n1,7,8\n", r"row 2: 3 fields where the header has 2"),
    "quote": ("e.csv", b'user,item\n1,"7\n', r"malformed \(unexpected end of data\)"),
    "time": ("e.csv", b"user,item,timestamp\n1,7,1\n1,7,monday\n", r"row 3: 'timestamp' is 'monday', not a number"),
    "no time": ("e.csv", b"user,item,timestamp\n1,7,\n", r"row 2: 'timestamp' is '', not a number. Give unix seconds"),
    "nanoseconds": ("e.csv", b"user,item,timestamp\n1,7,1600000000000000001\n", r"too large to be exact"),
    "repeated column": ("e.csv", b"user,item,user\n1,7,1\n", r"e\.csv: column 'user' appears twice"),
    "untyped header": ("e.inter", b"user_id\titem_id\n1\t7\n", r"row 1: column 'user_id' is not 'name:type'"),
    "late time": ("e.jsonl", lines({"user": 1, "item": 7}, {"user": 1, "item": 7, "ts": 1}), "row 2: has a time stamp"),
}  # fmt: skip

BAD_ITEMS = {
    "repeated": ("i.jsonl", lines({"id": 1, "title": "a"}, {"id": "1", "title": "b"}),
                 "row 2: item '1' was already in row 1"),
    "no id": ("i.csv", b"title\nx\n", r"row 2: no column 'id' or 'item_id' or 'item'; there is 'title'"),
    "empty id": ("i.csv", b"id,title\n ,x\n", r"row 2: 'id' is missing or empty"),
    "nothing to read": ("i.csv", b"id,price\n1,2\n", r"i\.csv: no column that describes an item .* Add at"),
    "title an object": ("i.jsonl", lines({"id": 1, "title": {"en": "x"}}), r"row 1: 'title' is \{'en': 'x'\}\. "),
    "empty": ("i.jsonl.gz", gzip.compress(b""), r"i\.jsonl\.gz: holds no items"),
    "fraction as id": ("i.jsonl", lines({"id": 1.5, "title": "x"}), r"row 1: 'id' is 1\.5"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SEQUENCES)
def test_bad_sequences(tmp_path: Path, items: ItemTable, case: str) -> None:
    name, content, message = BAD_SEQUENCES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_sequences(tmp_path / name, items)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", BAD_INTERACTIONS)
def test_bad_interactions(tmp_path: Path, items: ItemTable, case: str) -> None:
    name, content, message = BAD_INTERACTIONS[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(tmp_path / name, items)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_items(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_ITEMS[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_items(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet", "folder.csv"])
def test_missing_file_and_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=rf"{name}: there is no such file\. Check the path"):
        read_items(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | st.sampled_from([[7, "a"], "a", 7, [1, 2]]) for name in ("id", "user", "items", "ts", "title")
    },
)
HOSTILE = (
    st.binary(max_size=200)
    | st.lists(RECORD, max_size=4).map(lambda rows: lines(*rows))
    | st.lists(st.text('user,item\t:"\n\r7a\x00é', max_size=30), max_size=5).map(lambda rows: "\n".join(rows).encode())
    | st.tuples(st.binary(max_size=60), st.integers(0, 40)).map(lambda cut: gzip.compress(cut[0])[: cut[1]])
)


def complaint(read: Callable[[], object]) -> str | None:
    """The message of a DataError; any other error passes through and fails the test."""
    try:
        read()
    except DataError as error:
        return str(error)
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=HOSTILE, suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".inter", ".parquet"]))
@example(content=b'{"id": 1e999, "title": 1e999}', suffix=".jsonl")
@example(content=b'{"user": 1, "items": [7], "ts": [1' + b"0" * 5000 + b"]}", suffix=".jsonl")
@example(content=b'{"user": 1, "items": [7], "ts": [1' + b"0" * 400 + b"]}", suffix=".jsonl")
def test_hostile_files_raise_nothing_but_data_errors(
    tmp_path: Path, items: ItemTable, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"hostile{suffix}"
    path.write_bytes(content)
    for read in (lambda: read_items(path), lambda: read_sequences(path, items), lambda: read_interactions(path, items)):
        message = complaint(read)
        assert message is None or (str(path) in message and "\n" not in message)


def test_arrays_are_compact(tmp_path: Path, items: ItemTable) -> None:
    read = read_interactions(write_events(tmp_path / "e.csv"), items)
    assert [array.dtype.name for array in (read.users, read.items)] == ["int32", "int32"]
