"""Hard negatives of the contrastive loss (paper, 2.2.4 and Appendix A; rulings 10 and 16 of our digest).

The hard set of item j: the items nearest to j by the text of their sentences, or by a factorisation of the training
user-item matrix, that no user's training sequence holds together with j. Shapes: U users, I items, e text width.
Only the training part of the users given is read.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from trainers.data.item_factors import item_factors
from trainers.data.sequence_data import SequenceData

LEAST_NEAREST = 20
TIE = 1e-4
"""Squared distances that differ by no more than this share of themselves count as equal."""
DISTANCES_AT_ONCE = 1 << 24
"""Distances held in memory at a time (64 MB in float32), with a few arrays of their shape beside them."""


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """Which items stand together in a training sequence, kept as both directions of the user-item matrix."""

    user_items: sp.csr_matrix
    """[U, I] binary"""
    item_users: sp.csr_matrix
    """[I, U], its transpose"""

    @classmethod
    def of(cls, data: SequenceData) -> CoOccurrence:
        users, items = data.training_pairs()
        ones = np.ones(len(users), dtype=np.float32)
        matrix = sp.csr_matrix((ones, (users, items)), shape=(data.num_users, data.num_items))
        matrix.data[:] = 1  # a repeated item counts once
        return cls(matrix, sp.csr_matrix(matrix.T))

    def partners(self, item: int) -> NDArray[np.int32]:
        """Items that co-occur with `item`, itself included, once for each user; empty where none trained on it."""
        users = self.item_users.indices[self.item_users.indptr[item] : self.item_users.indptr[item + 1]]
        indptr, indices = self.user_items.indptr, self.user_items.indices
        found = [indices[indptr[user] : indptr[user + 1]] for user in users]
        return np.concatenate(found) if found else np.empty(0, dtype=np.int32)

    def rows(self, items: NDArray[np.int64]) -> sp.csr_matrix:
        """[len(items), I] with a stored value at every co-occurring pair, the diagonal included."""
        return sp.csr_matrix(self.item_users[items] @ self.user_items)


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
        anchors = np.diff(self.together.item_users.indptr) > 0
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
    if text_vectors.shape[:1] != (data.num_items,) or not np.isfinite(text_vectors).all():
        raise ValueError(f"expected finite text vectors [{data.num_items}, e], got {text_vectors.shape}")
    together = CoOccurrence.of(data)
    trained = np.flatnonzero(np.diff(together.item_users.indptr))
    factors = item_factors(together.user_items)
    nearest = max(LEAST_NEAREST, math.ceil(share * data.num_items))
    everything = np.arange(data.num_items)

    lengths = np.zeros(data.num_items, dtype=np.int64)
    rows: list[NDArray[np.int32]] = []
    step = max(1, DISTANCES_AT_ONCE // data.num_items)
    for first in range(0, len(trained), step):
        anchors = trained[first : first + step]
        near = _nearest(text_vectors, anchors, everything, nearest)
        # An item without training interactions has a zero vector, which says nothing about what it is near to.
        near |= _nearest(factors, anchors, trained, nearest)
        near[together.rows(anchors).nonzero()] = False
        lengths[anchors] = near.sum(axis=1)
        rows.append(np.nonzero(near)[1].astype(np.int32))
    items = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    digest = hashlib.blake2b(offsets.tobytes() + items.tobytes(), digest_size=8).hexdigest()
    name = f"text={encoder} share={share} factors={factors.shape[1]} rows={digest}"
    return HardSets(offsets, items, together, name)


def _nearest(
    vectors: NDArray[np.float32], anchors: NDArray[np.int64], candidates: NDArray[np.int64], nearest: int
) -> NDArray[np.bool_]:
    """[len(anchors), I] mask of the `nearest` candidates of each anchor by L2, itself apart.

    Candidates as near as the last of them are in as well, so neither the order of the items nor rounding decides.
    """
    mask = np.zeros((len(anchors), len(vectors)), dtype=np.bool_)
    if len(candidates) <= nearest + 1:
        mask[:, candidates] = True
        return mask
    others = vectors[candidates]
    own = vectors[anchors]
    distances = (own**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * (own @ others.T)  # squared
    np.maximum(distances, 0, out=distances)  # rounding
    distances[candidates == anchors[:, None]] = np.inf
    bar = np.partition(distances, nearest - 1, axis=1)[:, nearest - 1 : nearest]
    mask[:, candidates] = distances <= bar * (1 + TIE)
    return mask
