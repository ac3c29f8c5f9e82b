"""The values that data preparation hands to training: sequences, catalogue and item tokens.

All indices are zero-based positions: users 0..U-1, items 0..I-1. Raw identifiers live in the catalogue and in
`SequenceData.user_ids` alone; nothing downstream may read an order out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainers.data.names import Names
from trainers.data.splits import NONE, HeldOut

Split = Literal["validation", "test"]
HELD_OUT = 2
"""Leave-one-out holds out the last two interactions of a user: validation, then test (paper, 3.1.2)."""
USERS_AT_ONCE = 1 << 16
"""Users of a chunk, where something is computed for all of them."""


@dataclass(frozen=True)
class Catalogue:
    """Every item that can be ranked, in index order."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    sentences: tuple[str, ...]
    """The attribute dictionary flattened to `k1 v1 k2 v2 ...` (paper, 2.2.1)."""

    @cached_property
    def index(self) -> dict[str, int]:
        """Raw identifier -> item index."""
        return {identifier: position for position, identifier in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ItemTokens:
    """Tokens of every item sentence, stored once per item (compressed rows, memory-mapped when large)."""

    offsets: NDArray[np.int64]
    """[I + 1]"""
    tokens: NDArray[np.int32]
    """[total tokens]; each row holds 1 to `sentence_tokens` tokens, without special tokens."""

    def row(self, item: int) -> NDArray[np.int32]:
        return self.tokens[self.offsets[item] : self.offsets[item + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[I] tokens of each item."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class SequenceData:
    """Time-ordered item sequences of users (compressed rows) over one catalogue."""

    offsets: NDArray[np.int64]
    """[U + 1]"""
    items: NDArray[np.int32]
    """[interactions], oldest to newest inside a user"""
    user_ids: Sequence[str]
    catalogue: Catalogue
    fingerprint: str
    """Names data, filters and split; every result carries it."""
    held_out: HeldOut | None = None
    """Of a global split in time; None: leave-one-out"""

    @property
    def training_ends(self) -> NDArray[np.int64]:
        """[U] place in `items` after each user's training part"""
        if self.held_out is not None:
            return self.held_out.training_ends
        ends: NDArray[np.int64] = np.maximum(self.offsets[1:] - HELD_OUT, self.offsets[:-1])
        return ends

    @property
    def training_lengths(self) -> NDArray[np.int64]:
        """[U] items of each user's training part"""
        lengths: NDArray[np.int64] = self.training_ends - self.offsets[:-1]
        return lengths

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.catalogue)

    def places(self, split: Split, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B] place in `items` of the held-out item of each of `users`, or `splits.NONE`"""
        if self.held_out is None:
            return np.asarray(self.offsets[users + 1]) - (HELD_OUT if split == "validation" else 1)
        return (self.held_out.validation if split == "validation" else self.held_out.test)[users]

    def users_with(self, split: Split) -> NDArray[np.int64]:
        """Users, ascending, who have an item of `split`: all under leave-one-out"""
        everybody = np.arange(self.num_users)
        return everybody if self.held_out is None else everybody[self.places(split, everybody) != NONE]

    def sequence(self, user: int) -> NDArray[np.int32]:
        """The whole sequence, held-out items included."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def training(self, user: int) -> NDArray[np.int32]:
        """The only part that training may see: under leave-one-out, all but the last two items."""
        end = self.offsets[user + 1] - HELD_OUT if self.held_out is None else self.held_out.training_ends[user]
        return self.items[self.offsets[user] : max(end, self.offsets[user])]

    def user_chunks(self) -> Iterator[slice]:
        """All users in slices of `USERS_AT_ONCE`: what is done chunk by chunk needs no more memory for more users."""
        for first in range(0, self.num_users, USERS_AT_ONCE):
            yield slice(first, min(first + USERS_AT_ONCE, self.num_users))

    def training_pairs(self, users: slice | None = None) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Training interactions of `users`, a slice of whole users (None: all), as (users [N], items [N])."""
        first, last = (0, self.num_users) if users is None else (users.start, users.stop)
        starts = np.asarray(self.offsets[first:last])
        if self.held_out is None:
            lengths = np.maximum(self.offsets[first + 1 : last + 1] - starts - HELD_OUT, 0)
        else:
            lengths = self.held_out.training_ends[first:last] - starts
        numbers = np.repeat(np.arange(first, last), lengths)
        return numbers, np.asarray(self.items[ranges(starts, lengths)])

    def training_counts(self) -> NDArray[np.int64]:
        """[I] training interactions of every item."""
        counts = np.zeros(self.num_items, dtype=np.int64)
        for users in self.user_chunks():
            counts += np.bincount(self.training_pairs(users)[1], minlength=self.num_items)
        return counts

    def select_users(self, users: NDArray[np.int64]) -> SequenceData:
        """The same catalogue with `users` only, re-numbered 0..len(users)-1 in the order given (Data_BO)."""
        lengths = np.diff(self.offsets)[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = np.asarray(self.offsets[:-1][users])
        items = np.asarray(self.items[ranges(starts, lengths)])
        held_out = None if self.held_out is None else self.held_out.select(users, offsets[:-1] - starts)
        names = Names.of(self.user_ids).take(users)
        return SequenceData(offsets, items, names, self.catalogue, self.fingerprint, held_out)


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """[sum of lengths] positions `start, start + 1, ...` of each range, one range after the other.

    >>> ranges(np.array([7, 2]), np.array([3, 1])).tolist()
    [7, 8, 9, 2]
    """
    ends = np.cumsum(lengths)
    positions: NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    positions += np.arange(len(positions))
    return positions
