"""The part of a history that the backbone reads: its newest items that fit (ruling 7 of our digest of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.sequence_data import ItemTokens

WINDOWS_AT_ONCE = 1 << 16
"""Histories whose windows are found at a time, so that memory grows by the windows alone."""


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of N histories that stand one after another in one array of items."""

    first: NDArray[np.int64]
    """[N] place of the oldest item that is read"""
    end: NDArray[np.int64]
    """[N] place after the newest one"""
    tokens: NDArray[np.int64]
    """[N] tokens of the window's items, a [SEQ] each included"""

    @classmethod
    def of(
        cls,
        items: NDArray[np.int32],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        item_tokens: ItemTokens,
        history: int,
        context: int,
    ) -> Windows:
        """The newest items of each history: at most `history` of them, and at most `context` tokens.

        Args:
            starts: [N] ascending places in `items` where the histories begin.
            ends: [N] places after their last items.
        """
        lengths = item_tokens.lengths + 1
        firsts, tokens = np.empty(len(starts), dtype=np.int64), np.empty(len(starts), dtype=np.int64)
        for place in range(0, len(starts), WINDOWS_AT_ONCE):
            part = slice(place, place + WINDOWS_AT_ONCE)
            offset = int(starts[part][0])
            start, end = starts[part] - offset, ends[part] - offset
            # Tokens before each item of the chunk: the size of a window is a difference of two.
            before = np.concatenate([[0], np.cumsum(lengths[items[offset : offset + int(end[-1])]])])
            fitting = np.searchsorted(before, before[end] - context)
            first = np.maximum(np.maximum(start, end - history), fitting)
            firsts[part], tokens[part] = first + offset, before[end] - before[first]
        return cls(firsts, ends, tokens)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Windows:
        return Windows(self.first[chosen], self.end[chosen], self.tokens[chosen])
