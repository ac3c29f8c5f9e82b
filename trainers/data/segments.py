"""How attention is grouped: segments of the flat tokens that attend within themselves, in buckets of one shape.

A bucket is run as one batch of equal shapes, so nothing is padded and no mask is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORTH_SORTING = 1.5
"""Sorting copies all queries, keys and values. It is done where it leaves this many times fewer batches to run."""


@dataclass(frozen=True)
class Bucket:
    """Consecutive segments of one shape."""

    segments: int
    queries: int
    keys: int
    """Tokens that the queries of a segment see"""
    columns: int
    """Collaborative columns that they see besides"""


@dataclass(frozen=True)
class Segments:
    """A batch's attention in one branch, bucket after bucket."""

    buckets: tuple[Bucket, ...]
    queries: Tensor | None
    """Index of each query among the queries that there are; None: all of them, in their order"""
    keys: Tensor | None
    """Flat token index of each key; None: all tokens, in their order"""
    columns: Tensor
    """[sum of segments x columns] index of each column among the distinct column vectors of the batch"""
    column_positions: Tensor
    """Of the same shape: position of the first token of the column's segment (ruling 17)"""


@dataclass(frozen=True)
class Spans:
    """Consecutive ranges of an array of `total` entries, one a segment."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    total: int

    @classmethod
    def of_lengths(cls, lengths: NDArray[np.int64]) -> Spans:
        """Spans that cover an array from its start to its end."""
        ends = np.cumsum(lengths)
        return cls(ends - lengths, lengths, int(lengths.sum()))

    @classmethod
    def of_one(cls, starts: NDArray[np.int64], total: int) -> Spans:
        return cls(starts, np.ones_like(starts), total)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Spans:
        return Spans(self.starts[chosen], self.lengths[chosen], self.total)

    def indices(self) -> NDArray[np.int64]:
        """All entries of all spans, span after span."""
        before = np.cumsum(self.lengths) - self.lengths
        return np.repeat(self.starts - before, self.lengths) + np.arange(int(self.lengths.sum()))

    def _index(self) -> Tensor | None:
        found = self.indices()
        is_everything = len(found) == self.total and bool((np.diff(found, prepend=-1) == 1).all())
        return None if is_everything else torch.from_numpy(found)


NO_COLUMNS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


def segments(
    queries: Spans,
    keys: Spans,
    columns: NDArray[np.int64] | None = None,
    positions: NDArray[np.int64] = NO_COLUMNS,
) -> Segments:
    """Sort segments into buckets.

    Args:
        queries, keys: [N] spans, one a segment.
        columns: [N, c] distinct column vector that each segment sees, or -1; None where no segment sees any.
        positions: [N] position of the first token of each segment, where there are columns.
    """
    seen = np.zeros(len(keys.lengths), dtype=np.int64) if columns is None else (columns >= 0).sum(axis=1)
    shapes = np.stack([queries.lengths, keys.lengths, seen], axis=1)
    order = np.arange(len(shapes))
    changes = _changes(shapes)
    sorted_order = np.lexsort((*shapes.T[::-1],))
    sorted_changes = _changes(shapes[sorted_order])
    if len(changes) > _WORTH_SORTING * len(sorted_changes):
        order, changes = sorted_order, sorted_changes
    sizes = np.diff(np.append(changes, len(shapes)))
    buckets = tuple(
        Bucket(int(size), *(int(number) for number in shapes[order[first]]))
        for first, size in zip(changes, sizes, strict=True)
    )
    shown = where = NO_COLUMNS
    if columns is not None:
        shown = columns[order][columns[order] >= 0]
        where = np.repeat(positions[order], seen[order])
    return Segments(
        buckets,
        queries[order]._index(),
        keys[order]._index(),
        torch.from_numpy(shown),
        torch.from_numpy(where),
    )


def _changes(shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a run of equal shapes begins."""
    return np.flatnonzero(np.concatenate([[True], (np.diff(shapes, axis=0) != 0).any(axis=1)]))
