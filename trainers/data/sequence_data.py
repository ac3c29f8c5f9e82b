"""The values that data preparation hands to training: sequences, catalogue and item tokens.

All indices are zero-based positions: users 0..U-1, items 0..I-1. Raw identifiers live in the catalogue and in
`SequenceData.user_ids` alone; nothing downstream may read an order out of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

HELD_OUT = 2
"""Leave-one-out holds out the last two interactions of a user: validation, then test (paper, 3.1.2)."""


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

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class SequenceData:
    """Time-ordered item sequences of users (compressed rows) over one catalogue."""

    offsets: NDArray[np.int64]
    """[U + 1]"""
    items: NDArray[np.int32]
    """[interactions], oldest to newest inside a user"""
    user_ids: tuple[str, ...]
    catalogue: Catalogue
    fingerprint: str
    """Names data, filters and split; every result carries it."""

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.catalogue)

    def sequence(self, user: int) -> NDArray[np.int32]:
        """The whole sequence, held-out items included."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def training(self, user: int) -> NDArray[np.int32]:
        """All but the two held-out items: the only part that training may see."""
        return self.items[self.offsets[user] : self.offsets[user + 1] - HELD_OUT]

    def training_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """All training interactions as (users [N], items [N])."""
        lengths = np.diff(self.offsets)
        users = np.repeat(np.arange(self.num_users), lengths)
        from_end = np.repeat(self.offsets[1:], lengths) - np.arange(len(self.items))
        kept = from_end > HELD_OUT
        return users[kept], self.items[kept]

    def select_users(self, users: NDArray[np.int64]) -> SequenceData:
        """The same catalogue with `users` only, re-numbered 0..len(users)-1 in the order given (Data_BO)."""
        lengths = np.diff(self.offsets)[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        items = (
            np.concatenate([self.sequence(int(user)) for user in users]) if len(users) else np.empty(0, dtype=np.int32)
        )
        chosen = tuple(self.user_ids[int(user)] for user in users)
        return SequenceData(offsets, items, chosen, self.catalogue, self.fingerprint)
