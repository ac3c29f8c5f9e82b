"""Which items stand together in a training sequence (paper, Appendix A). Shapes: U users, I items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from trainers.data.sequence_data import SequenceData, ranges


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """Both directions of the binary user-item matrix, as compressed rows that may be memory-mapped."""

    user_offsets: NDArray[np.int64]
    """[U + 1]"""
    user_items: NDArray[np.int32]
    """[N] training items of each user, each once, ascending"""
    item_offsets: NDArray[np.int64]
    """[I + 1]"""
    item_users: NDArray[np.int32]
    """[N] users that trained on each item, ascending"""

    @classmethod
    def of(cls, data: SequenceData) -> CoOccurrence:
        offsets = np.zeros(data.num_users + 1, dtype=np.int64)
        parts: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)]
        for chunk in data.user_chunks():
            users, items = data.training_pairs(chunk)
            starts = np.searchsorted(users, np.arange(chunk.start, chunk.stop + 1))
            ones = np.ones(len(items), dtype=np.int8)
            rows = sp.csr_matrix((ones, items, starts), shape=(chunk.stop - chunk.start, data.num_items), copy=True)
            rows.sum_duplicates()  # an item that repeats counts once; the sums themselves are not read
            parts.append(rows.indices.astype(np.int32, copy=False))
            offsets[chunk.start + 1 : chunk.stop + 1] = offsets[chunk.start] + rows.indptr[1:]
        user_items = np.concatenate(parts)
        ones = np.ones(len(user_items), dtype=np.int8)
        by_item = sp.csr_matrix((ones, user_items, offsets), shape=(data.num_users, data.num_items)).tocsc()
        return cls(offsets, user_items, by_item.indptr.astype(np.int64), by_item.indices.astype(np.int32, copy=False))

    @property
    def num_items(self) -> int:
        return len(self.item_offsets) - 1

    @property
    def num_users(self) -> int:
        return len(self.user_offsets) - 1

    @property
    def trained(self) -> NDArray[np.bool_]:
        """[I] whether some user trained on the item."""
        return np.diff(self.item_offsets) > 0

    def partners(self, item: int) -> NDArray[np.int32]:
        """Items that co-occur with `item`, itself included, once for each user; empty where none trained on it."""
        users = self.item_users[self.item_offsets[item] : self.item_offsets[item + 1]]
        starts = self.user_offsets[users]
        return np.asarray(self.user_items[ranges(starts, self.user_offsets[users + 1] - starts)])

    def rows(self, items: NDArray[np.int64]) -> sp.csr_matrix:
        """[len(items), I] with a stored value at every co-occurring pair, the diagonal included.

        A product of sparse matrices merges as it goes: to write all pairs of all users down first would take the
        square of long histories.
        """
        starts = self.item_offsets[items]
        lengths = self.item_offsets[items + 1] - starts
        users = self.item_users[ranges(starts, lengths)]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        of_items = sp.csr_matrix((np.ones(len(users), np.bool_), users, ends), shape=(len(items), self.num_users))
        together: sp.csr_matrix = of_items @ self._by_user
        return together

    @cached_property
    def _by_user(self) -> sp.csr_matrix:
        return self.matrix(slice(0, self.num_users), np.bool_)

    def matrix(self, users: slice, kind: type[np.generic] = np.float32) -> sp.csr_matrix:
        """[len(users), I] ones of `kind`: who trained on what, of a slice of the users."""
        offsets = self.user_offsets[users.start : users.stop + 1]
        items = self.user_items[offsets[0] : offsets[-1]]
        ones = np.ones(len(items), dtype=kind)
        return sp.csr_matrix((ones, items, offsets - offsets[0]), shape=(len(offsets) - 1, self.num_items))
