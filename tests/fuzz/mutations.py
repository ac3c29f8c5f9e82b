"""Things near a valid one: bytes, trees as JSON and YAML have them, tables, tensors."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

DEEP = 100_000
PLACE = st.integers(0, 1 << 20)
"""Of a byte, modulo the length"""
CHUNKS = st.binary(max_size=8) | st.sampled_from(
    [
        b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n\n", b'"', b"\\", b",", b"\t", b"{}", b"[]",
        b"&a *a ", b"null", b"NaN", b"-1", b"1e999", b"9" * 30, b"\\ud800", b"\x1b[31m", "\u2028".encode(), b"../../x",
        b"\x7f" * 8, b"\x1f\x8b\x08\0", b"PAR1", b"\x93NUMPY",
    ]
)  # fmt: skip
CHUNKS |= st.builds(bytes.__mul__, st.sampled_from([b"[", b'{"a":', b"- ", b"\0", b"9"]), st.sampled_from([5000, DEEP]))
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"),
    "", " ", "\0", "a\nb", "\ud800", "\x1b[31m", "x" * 5000, "../../etc/passwd", "/", "3", "null", [], [[]], [None],
    [0, -1], {}, {"": None}, {"a": {"a": []}},
)  # fmt: skip


Edit = Callable[[bytes], bytes]


def _cut(at: int) -> Edit:
    return lambda data: data[: at % (len(data) + 1)]


def _flip(at: int, bit: int) -> Edit:
    return lambda data: data and _put(data, at, bytes([data[at % len(data)] ^ (1 << bit)]), 1)


def _insert(at: int, chunk: bytes) -> Edit:
    return lambda data: _put(data, at, chunk, 0)


def _overwrite(at: int, chunk: bytes) -> Edit:
    return lambda data: _put(data, at, chunk, len(chunk))


def _drop(at: int, length: int) -> Edit:
    return lambda data: _put(data, at, b"", length)


def _repeat(at: int, length: int, times: int) -> Edit:
    return lambda data: _put(data, at, data[at % (len(data) + 1) :][:length] * times, 0)


def _put(data: bytes, at: int, chunk: bytes, instead_of: int) -> bytes:
    at %= max(len(data), 1)
    return data[:at] + chunk + data[at + instead_of :]


_LENGTH = st.integers(1, 64)
_EDIT = st.one_of(
    st.builds(_cut, PLACE),
    st.builds(_flip, PLACE, st.integers(0, 7)),
    st.builds(_insert, PLACE, CHUNKS),
    st.builds(_overwrite, PLACE, CHUNKS),
    st.builds(_drop, PLACE, _LENGTH),
    st.builds(_repeat, PLACE, _LENGTH, st.integers(1, 100)),
)


def bytes_near(*valid: bytes) -> st.SearchStrategy[bytes]:
    """One of the `valid` ones after one to four edits, or anything."""

    def edited(data: bytes, edits: list[Edit]) -> bytes:
        for edit in edits:
            data = edit(data)
        return data

    near = st.builds(edited, st.sampled_from(valid), st.lists(_EDIT, min_size=1, max_size=4))
    return near | near | near | st.binary(max_size=200)


def _nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of `tree`."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from _nodes(value, (*path, key))


@st.composite
def trees_near(draw: st.DrawFn, valid: Any, odd: tuple[Any, ...] = ODD) -> Any:
    """`valid`, of dicts and lists, with one to three parts that are gone, odd, another's, or under another name."""
    tree = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        paths = list(_nodes(tree))
        if not paths:
            return draw(st.sampled_from(odd))
        path = draw(st.sampled_from(paths))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["odd", "odd", "another's", "gone", "renamed", "wrapped"])):
            case "odd":
                parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(odd)))
            case "another's":
                other = draw(st.sampled_from(paths))
                found = tree
                for key in other:
                    found = found[key]
                parent[path[-1]] = copy.deepcopy(found)
            case "gone":
                del parent[path[-1]]
            case "renamed" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["", "a.b", "\n", *(str(key) for key in parent)]))] = parent.pop(path[-1])
            case _:
                parent[path[-1]] = draw(st.sampled_from([[parent[path[-1]]], {"a": parent[path[-1]]}]))
    return tree


def json_near(valid: Any) -> st.SearchStrategy[bytes]:
    """A file of JSON: `valid` with other parts, or with other bytes."""
    written = trees_near(valid).map(lambda tree: json.dumps(tree).encode())
    return written | bytes_near(json.dumps(valid).encode())


def _columns(length: int) -> list[Any]:
    """As long as a table, of every kind of value."""
    some = [None] * length
    return [
        pa.array(list(range(length)), pa.int64()),
        pa.array([-1] * length, pa.int32()),
        pa.array([2**63 + 1] * length, pa.uint64()),
        pa.array([float("nan")] * length),
        pa.array([1e300] * length),
        pa.array(["x"] * length),
        pa.array([""] * length),
        pa.array(["a\nb\x1b[31m"] * length, pa.large_string()),
        pa.array([b"\xff"] * length, pa.binary()),
        pa.array([True] * length),
        pa.array(some, pa.null()),
        pa.array(some, pa.string()),
        pa.array([[1, 2]] * length),
        pa.array([["a", None]] * length),
        pa.array([{"a": 1}] * length),
        pa.array([2**62] * length, pa.timestamp("ns")),
        pa.array([-(2**62)] * length, pa.timestamp("us")),
        pa.array([0] * length, pa.duration("s")),
        pa.array(["7"] * length).dictionary_encode(),
    ]


@st.composite
def tables_near(draw: st.DrawFn, valid: Any, path: Path) -> bytes:
    """A Parquet file: `valid` with columns that are gone, of another kind, twice or under another name, or with fewer
    rows; or with other bytes. `path`: where it is written on the way."""
    pq.write_table(valid, path)
    if draw(st.booleans()):
        return draw(bytes_near(path.read_bytes()))
    table = valid
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, max(table.num_columns - 1, 0)))
        name = table.column_names[at] if table.num_columns else "a"
        match draw(st.sampled_from(["kind", "kind", "kind", "gone", "name", "twice", "short", "metadata"])):
            case "kind" if table.num_columns:
                table = table.set_column(at, name, draw(st.sampled_from(_columns(len(table)))))
            case "gone" if table.num_columns:
                table = table.remove_column(at)
            case "name" if table.num_columns:
                names = [*table.column_names]
                names[at] = draw(st.sampled_from(["", "x", "\n", *names]))
                table = table.rename_columns(names)
            case "twice" if table.num_columns:
                table = table.append_column(name, table.column(at))
            case "short":
                table = table.slice(0, draw(st.integers(0, len(table))))
            case _:
                odd = st.sampled_from([b"", b"\xff", b"1e999", b"a\nb", b"test"])
                keys = list(table.schema.metadata or {b"split": b""})
                table = table.replace_schema_metadata({key: draw(odd) for key in keys})
    pq.write_table(table, path)
    return path.read_bytes()


@st.composite
def tensors_near(draw: st.DrawFn, valid: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file: `valid` with tensors that are gone, of another kind, size or name; or with other bytes."""
    if draw(st.booleans()):
        return draw(bytes_near(save(dict(valid), dict(header or {}))))
    tensors = dict(valid)
    name = draw(st.sampled_from(sorted(tensors)))
    mine = tensors.pop(name)
    match draw(st.sampled_from(["gone", "name", "kind", "size", "value"])):
        case "name":
            tensors[draw(st.sampled_from(["", "x", f"{name}.x"]))] = mine
        case "kind":
            kinds = [torch.int64, torch.float64, torch.float16, torch.bool, torch.uint8, torch.int8]
            tensors[name] = mine.to(draw(st.sampled_from(kinds)))
        case "size":
            tensors[name] = draw(
                st.sampled_from(
                    [
                        mine.reshape(-1)[:0],
                        mine.reshape(-1)[:1],
                        mine.flatten(),
                        mine[None],
                        torch.zeros(()),
                        torch.zeros(0, 7),
                    ]
                )
            )
        case "value":
            tensors[name] = torch.full_like(mine, draw(st.sampled_from([-1, 0, 1, 100])))
    return save({key: value.contiguous().clone() for key, value in tensors.items()}, dict(header or {}))


@st.composite
def arrays_near(draw: st.DrawFn, valid: Any, path: Path) -> bytes:
    """A `.npy` file: `valid` as another kind, of another shape or with other values; or with other bytes."""
    np.save(path, valid)
    if draw(st.booleans()):
        return draw(bytes_near(path.read_bytes()))
    found = draw(
        st.sampled_from(
            [valid[:0], valid[:1], valid[::-1], valid[None], valid + 1, -valid, valid.astype("<U3"), valid > 1,
             valid.astype(np.float16), valid.astype(">i8"), valid.reshape(-1), np.zeros(()), np.array([["x"]])]
        )
    )  # fmt: skip
    np.save(path, found)
    return path.read_bytes()
