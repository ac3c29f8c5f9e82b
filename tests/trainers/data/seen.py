"""Segments read back, one at a time: which queries see which tokens and which columns."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.data.rows import NO_COLUMN, Rows
from trainers.data.segments import Segments


@dataclass(frozen=True, order=True)
class Seen:
    """One segment."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    item: int = NO_COLUMN
    user: int = NO_COLUMN
    column_positions: tuple[int, ...] = ()


def seen(rows: Rows, segments: Segments, num_queries: int) -> list[Seen]:
    """All segments of `segments`, in the order of their queries."""
    queries = iter(range(num_queries) if segments.queries is None else segments.queries.tolist())
    keys = iter(range(len(rows.tokens)) if segments.keys is None else segments.keys.tolist())
    columns = iter(zip(segments.columns.tolist(), segments.column_positions.tolist(), strict=True))
    items, users = rows.column_items.tolist(), rows.column_users.tolist()
    found = []
    for bucket in segments.buckets:
        of_queries = [[next(queries) for _ in range(bucket.queries)] for _ in range(bucket.segments)]
        of_keys = [[next(keys) for _ in range(bucket.keys)] for _ in range(bucket.segments)]
        for own_queries, own_keys in zip(of_queries, of_keys, strict=True):
            own = [next(columns) for _ in range(bucket.columns)]
            item = [items[index] for index, _ in own if index < len(items)]
            user = [users[index - len(items)] for index, _ in own if index >= len(items)]
            found.append(
                Seen(
                    tuple(own_queries),
                    tuple(own_keys),
                    item[0] if item else NO_COLUMN,
                    user[0] if user else NO_COLUMN,
                    tuple(position for _, position in own),
                )
            )
    assert not [*queries, *keys, *columns], "something is in no bucket"
    return sorted(found)
