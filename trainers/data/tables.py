"""Items and interactions in one neutral form, whatever file they came from.

Interactions are read after the items, straight into item numbers, so an item that the catalogue lacks is reported
at its row and identifiers are not kept twice.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.errors import bad_file, bad_row
from trainers.data.records import Fields, records

USER = ("user", "user_id")
ITEM = ("item", "item_id")
TIMESTAMP = ("timestamp", "ts")
ITEM_ID = ("id", "item_id", "item")
LARGEST_EXACT = 2.0**53
"""A float64 holds every integer up to here; beyond, time stamps would be rounded and falsely tie."""

Attributes = Mapping[str, Sequence[str]]
"""Attribute key, as it appears in the item sentence, -> the columns that may hold it, first found wins."""

DEFAULT_ATTRIBUTES: Attributes = {
    "title": ("title", "movie_title"),
    "brand": ("brand",),
    "category": ("category",),
    "year": ("year", "release_year"),
    "genres": ("genres", "class"),
}
"""Order and keys of the sentence (ruling 7); a file gives those it has. Year and genres are ML-100K's."""


@dataclass(frozen=True)
class ItemTable:
    """Items in the order of their file, which nothing in the interactions decides."""

    path: Path
    ids: list[str]
    attributes: dict[str, list[str]]
    """Key -> one value per item, in sentence order; an empty text where the item has none."""
    rows: list[int]
    """Row of each item in its file, for messages."""


@dataclass(frozen=True)
class Interactions:
    """Interactions in the order of their file."""

    path: Path
    users: NDArray[np.int32]
    """[N] position in `user_ids`"""
    items: NDArray[np.int32]
    """[N] position in the item table"""
    timestamps: NDArray[np.float64] | None
    """[N]"""
    user_ids: list[str]
    """In order of first appearance."""


def read_items(path: Path, attributes: Attributes | None = None) -> ItemTable:
    """Read an items file.

    Args:
        attributes: what makes up the sentence; each must be found. Default: what the file has of DEFAULT_ATTRIBUTES.

    Raises:
        DataError: no row, missing column, empty or repeated identifier, a value that is no text.
    """
    wanted = DEFAULT_ATTRIBUTES if attributes is None else attributes
    seen: dict[str, int] = {}
    values: dict[str, list[str]] = {key: [] for key in wanted}
    found: set[str] = set()
    id_column: str | None = None
    for row, fields in records(path):
        id_column = id_column or _column(path, row, fields, ITEM_ID)
        identifier = _identifier(path, row, id_column, fields.get(id_column))
        if identifier in seen:
            raise bad_row(path, row, f"item {identifier!r} was already in row {seen[identifier]}", "Remove one of them")
        seen[identifier] = row
        for key, columns in wanted.items():
            column = next((column for column in columns if column in fields), None)
            values[key].append("" if column is None else item_text(path, row, column, fields[column]))
            if column is not None:
                found.add(key)
    if not seen:
        raise bad_file(path, "holds no items", "Give one item a row")
    missing = [key for key in wanted if key not in found]
    if attributes is not None and missing:
        named = " or ".join(repr(column) for column in wanted[missing[0]])
        raise bad_file(path, f"no column {named} for attribute {missing[0]!r}", "Check --attribute")
    kept = {key: column for key, column in values.items() if key in found}
    if not kept:
        columns = ", ".join(column for names in wanted.values() for column in names)
        raise bad_file(path, f"no column that describes an item ({columns})", "Add at least a title")
    return ItemTable(path, list(seen), kept, list(seen.values()))


def read_interactions(path: Path, items: ItemTable) -> Interactions:
    """Read one interaction a row: user, item and, optionally, timestamp (unix time in any unit, or a Parquet time).

    Without time stamps the order of the file is the order in time.

    Raises:
        DataError: no row, missing column, unknown item, a time stamp that is no number or is missing in some rows.
    """
    index = {identifier: position for position, identifier in enumerate(items.ids)}
    user_numbers: dict[str, int] = {}
    users, item_numbers, timestamps = array("i"), array("i"), array("d")
    user_column = item_column = ""
    time_column: str | None = None
    for row, fields in records(path):
        if not user_column:
            user_column, item_column = _column(path, row, fields, USER), _column(path, row, fields, ITEM)
            time_column = next((name for name in TIMESTAMP if name in fields), None)
        user = _identifier(path, row, user_column, fields.get(user_column))
        item = _identifier(path, row, item_column, fields.get(item_column))
        users.append(user_numbers.setdefault(user, len(user_numbers)))
        item_numbers.append(_known(path, row, item, index, items.path))
        if time_column is not None:
            timestamps.append(_timestamp(path, row, time_column, fields.get(time_column)))
        elif any(name in fields for name in TIMESTAMP):
            raise bad_row(path, row, "has a time stamp, the rows before have none", "Give all or none")
    return as_interactions(path, users, item_numbers, timestamps if time_column else None, user_numbers)


def read_sequences(path: Path, items: ItemTable) -> Interactions:
    """Read one user a row: user, items oldest to newest and, optionally, ts (one per item, never falling).

    Raises:
        DataError: no row, missing field, repeated user, unknown item, as many time stamps as items not given,
            unsorted time stamps, time stamps in some rows only.
    """
    index = {identifier: position for position, identifier in enumerate(items.ids)}
    user_rows: dict[str, int] = {}
    users, item_numbers, timestamps = array("i"), array("i"), array("d")
    user_column = ""
    timed: bool | None = None
    for row, fields in records(path):
        user_column = user_column or _column(path, row, fields, USER)
        user = _identifier(path, row, user_column, fields.get(user_column))
        if user in user_rows:
            raise bad_row(path, row, f"user {user!r} was already in row {user_rows[user]}", "Join the two sequences")
        user_rows[user] = row
        sequence = _list(path, row, "items", fields)
        for value in sequence:
            item_numbers.append(_known(path, row, _identifier(path, row, "items", value), index, items.path))
        users.extend([len(user_rows) - 1] * len(sequence))
        timed = "ts" in fields if timed is None else timed
        if timed != ("ts" in fields):
            raise bad_row(path, row, f"has {'no ' if timed else ''}'ts' unlike the rows before", "Give all or none")
        if timed:
            timestamps.extend(_sorted_timestamps(path, row, fields, len(sequence)))
    return as_interactions(path, users, item_numbers, timestamps if timed else None, user_rows)


def as_interactions(
    path: Path, users: array[int], items: array[int], times: array[float] | None, numbered: dict[str, int]
) -> Interactions:
    """What was read row by row; `numbered` are the users in order of appearance. Raises DataError for no row."""
    if not users:
        raise bad_file(path, "holds no interactions", "Give at least three a user")
    return Interactions(
        path,
        np.frombuffer(users, dtype=np.int32),
        np.frombuffer(items, dtype=np.int32),
        None if times is None else np.frombuffer(times, dtype=np.float64),
        list(numbered),
    )


def _column(path: Path, row: int, fields: Fields, names: Sequence[str]) -> str:
    for name in names:
        if name in fields:
            return name
    wanted = " or ".join(repr(name) for name in names)
    present = ", ".join(map(repr, fields)) or "none"
    raise bad_row(path, row, f"no column {wanted}; there is {present}", f"Add or rename a column to {names[0]!r}")


def _identifier(path: Path, row: int, column: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    problem = "is missing or empty" if value is None or isinstance(value, str) else f"is {_shown(value)}"
    raise bad_row(path, row, f"{column!r} {problem}", "Give a whole number or a text")


def _known(path: Path, row: int, item: str, index: Mapping[str, int], items_path: Path) -> int:
    position = index.get(item)
    if position is None:
        remedy = "Add it there or remove the interaction"
        raise bad_row(path, row, f"item {item!r} is not in {items_path}", remedy)
    return position


def item_text(path: Path, row: int, column: str, value: Any) -> str:
    """An attribute value as one line: a text, a number, or a list of those (a category path, genres).

    Raises:
        DataError: anything else.
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(filter(None, (item_text(path, row, column, part) for part in value)))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise bad_row(path, row, f"{column!r} is {_shown(value)}", "Give a text, a number or a list of texts")
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return " ".join(str(value).split())


def _timestamp(path: Path, row: int, column: str, value: Any) -> float:
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise bad_row(path, row, f"{column!r} is {_shown(value)}, not a number", "Give unix seconds")
    if abs(number) > LARGEST_EXACT:
        raise bad_row(path, row, f"{column!r} is {_shown(value)}, too large to be exact", "Give unix seconds")
    return number


def _sorted_timestamps(path: Path, row: int, fields: Fields, length: int) -> list[float]:
    times = [_timestamp(path, row, "ts", value) for value in _list(path, row, "ts", fields)]
    if len(times) != length:
        raise bad_row(path, row, f"{length} items but {len(times)} time stamps", "Give one 'ts' for each item")
    for place, (earlier, later) in enumerate(pairwise(times), start=2):
        if later < earlier:
            problem = f"time stamp {place} ({later:.0f}) is before time stamp {place - 1} ({earlier:.0f})"
            raise bad_row(path, row, problem, "Sort items and 'ts' together, oldest first")
    return times


def _list(path: Path, row: int, column: str, fields: Fields) -> list[Any]:
    value = fields.get(column)
    if not isinstance(value, list):
        problem = f"no column {column!r}" if column not in fields else f"{column!r} is {_shown(value)}, not a list"
        raise bad_row(path, row, problem, f"Give {column!r} as a list, oldest first")
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
