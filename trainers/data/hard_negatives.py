"""Hard negatives of the contrastive loss (paper, 2.2.4 and Appendix A; rulings 10 and 16 of our digest).

The hard set of item j: the items nearest to j by the text of their sentences, or by a factorisation of the training
user-item matrix, that no user's training sequence holds together with j. Shapes: U users, I items, e text width.
Only the training part of the users given is read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.co_occurrence import CoOccurrence
from trainers.data.item_factors import factor_dimensions, item_factors
from trainers.data.sequence_data import SequenceData
from trainers.progress import Progress, silent

LEAST_NEAREST = 20
TIE = 1e-4
"""Squared distances that differ by no more than this share of themselves count as equal."""
DISTANCES_AT_ONCE = 1 << 24
"""Distances held in memory at a time (64 MB in float32), with a few arrays of their shape beside them."""
_ROWS_SQUARED_AT_ONCE = 1 << 13


@dataclass(frozen=True, eq=False)
class HardSets:
    """The hard set of every item that occurs in training (compressed rows); other items have an empty one."""

    offsets: NDArray[np.int64]
    """[I + 1]"""
    items: NDArray[np.int32]
    """Ascending within a row."""
    together: CoOccurrence
    fingerprint: str
    """Names encoder, share and factorisation, with a hash of the rows."""

    @property
    def num_items(self) -> int:
        return len(self.offsets) - 1

    @property
    def anchor_share(self) -> float:
        """Share of the items that can be a positive (those in training) whose hard set is not empty."""
        anchors = self.together.trained
        return float((np.diff(self.offsets)[anchors] > 0).mean()) if anchors.any() else 0.0

    def row(self, item: int) -> NDArray[np.int32]:
        """N_j, ascending; never holds `item` or an item that co-occurs with it."""
        return self.items[self.offsets[item] : self.offsets[item + 1]]

    def sample(self, item: int, n: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """`n` distinct negatives of `item`, none of them `item`.

        Drawn uniformly from its hard set; where that is too small it is taken whole, and the rest is drawn
        uniformly from the items that never co-occur with `item` (rulings 10 and 16). Only where these are too few
        as well, uniformly from what else the catalogue has.

        Raises:
            ValueError: the catalogue has no `n` other items.
        """
        if n >= self.num_items:
            raise ValueError(f"{n} negatives asked for, but the catalogue has {self.num_items} items in all")
        hard = self.row(item)
        if len(hard) >= n:
            return rng.choice(hard, n, replace=False)
        drawn = [hard]
        free = np.ones(self.num_items, dtype=np.bool_)
        free[hard] = free[item] = False
        apart = free.copy()
        apart[self.together.partners(item)] = False
        for pool in (apart, free & ~apart):
            missing = n - sum(map(len, drawn))
            candidates = np.flatnonzero(pool).astype(np.int32)
            drawn.append(rng.choice(candidates, min(missing, len(candidates)), replace=False))
        return np.concatenate(drawn)


def hard_sets(data: SequenceData, text_vectors: NDArray[np.float32], *, share: float, encoder: str) -> HardSets:
    """Build the hard sets from the training part of `data`, which holds exactly the users trained on (ruling 17).

    Args:
        text_vectors: [I, e] mean-of-tokens embedding of each item sentence.
        share: of the catalogue that counts as near, separately by text and by factorisation; at least 20 items.
        encoder: names what made `text_vectors`, for the fingerprint.

    Raises:
        ValueError: `text_vectors` has not one finite row for each item.
    """
    together = CoOccurrence.of(data)
    blocks = list(hard_rows(together, text_vectors, share))
    lengths = np.zeros(data.num_items, dtype=np.int64)
    for block in blocks:
        lengths[block.anchors] = block.lengths
    items = np.concatenate([block.items for block in blocks]) if blocks else np.empty(0, dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return HardSets(offsets, items, together, fingerprint_of(offsets, items, together, share=share, encoder=encoder))


def fingerprint_of(
    offsets: NDArray[np.int64], items: NDArray[np.int32], together: CoOccurrence, *, share: float, encoder: str
) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(offsets).data, digest_size=8)
    digest.update(np.ascontiguousarray(items).data)
    factors = factor_dimensions(together)
    return f"text={encoder} share={share} factors={factors} rows={digest.hexdigest()}"


@dataclass(frozen=True, eq=False)
class HardRows:
    """The hard sets of some items."""

    anchors: NDArray[np.int64]
    """[A] ascending"""
    lengths: NDArray[np.int64]
    """[A]"""
    items: NDArray[np.int32]
    """[sum of lengths]"""


def hard_rows(
    together: CoOccurrence, text_vectors: NDArray[np.float32], share: float, progress: Progress = silent
) -> Iterator[HardRows]:
    """The hard set of every item with a training interaction, some items at a time, in rising order.

    Raises:
        ValueError: as `hard_sets`.
    """
    num_items = together.num_items
    if text_vectors.shape[:1] != (num_items,) or not np.isfinite(text_vectors).all():
        raise ValueError(f"expected finite text vectors [{num_items}, e], got {text_vectors.shape}")
    trained = np.flatnonzero(together.trained)
    nearest = max(LEAST_NEAREST, math.ceil(share * num_items))
    progress("factors of the interactions")
    by_text = _Neighbours(text_vectors, np.arange(num_items), nearest)
    # An item without training interactions has a zero vector, which says nothing about what it is near to.
    by_factors = _Neighbours(item_factors(together), trained, nearest)
    step = max(1, DISTANCES_AT_ONCE // num_items)
    for first in range(0, len(trained), step):
        progress(f"hard negatives of {len(trained):,} items, {first / len(trained):.0%}")
        anchors = trained[first : first + step]
        near = by_text.mask(anchors)
        near |= by_factors.mask(anchors)
        near[together.rows(anchors).nonzero()] = False
        yield HardRows(anchors, near.sum(axis=1), np.nonzero(near)[1].astype(np.int32))


class _Neighbours:
    """Finds the `nearest` candidates of some items by L2."""

    def __init__(self, vectors: NDArray[np.float32], candidates: NDArray[np.int64], nearest: int) -> None:
        """Takes vectors [I, e] of all items and the candidates [C], ascending."""
        self._num_items = len(vectors)
        self._candidates = candidates
        self._nearest = nearest
        self._others = vectors if len(candidates) == len(vectors) else vectors[candidates]
        self._squares = np.empty(len(candidates), dtype=np.float32)
        for first in range(0, len(candidates), _ROWS_SQUARED_AT_ONCE):
            rows = slice(first, first + _ROWS_SQUARED_AT_ONCE)
            self._squares[rows] = (self._others[rows] ** 2).sum(axis=1)

    def mask(self, anchors: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[len(anchors), I] mask of the candidates nearest to each anchor, which is a candidate itself and apart.

        Candidates as near as the last of them are in as well, so neither the order of the items nor rounding decides.
        """
        mask = np.zeros((len(anchors), self._num_items), dtype=np.bool_)
        if len(self._candidates) <= self._nearest + 1:
            mask[:, self._candidates] = True
            return mask
        own = np.searchsorted(self._candidates, anchors)
        products = self._others[own] @ self._others.T
        products *= 2
        distances = self._squares[own][:, None] + self._squares  # squared
        distances -= products
        np.maximum(distances, 0, out=distances)  # rounding
        distances[np.arange(len(own)), own] = np.inf
        products[:] = distances
        products.partition(self._nearest - 1, axis=1)
        bar = products[:, self._nearest - 1 : self._nearest] * (1 + TIE)
        if len(self._candidates) == self._num_items:
            np.less_equal(distances, bar, out=mask)
        else:
            mask[:, self._candidates] = distances <= bar
        return mask
