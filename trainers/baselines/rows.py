"""Item sequences as rows of equal length: what the sequential baselines train on and score.

Legend: B rows, N places of a row, I items, T training targets. Rows start at place 0 and are filled up with I, the
index after the last item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.histories import ends_of
from trainers.data.sequence_data import SequenceData, Split


@dataclass(frozen=True)
class Rows:
    """Some item sequences."""

    items: Tensor
    """[B, N] int64, filled up with I"""
    lengths: Tensor
    """[B] items of each row, at least one"""
    counted_from: Tensor
    """[B] first place whose item is a training target; the items before it are context, targets of another row"""

    @property
    def last(self) -> Tensor:
        """[B] place of the newest item."""
        return self.lengths - 1


def to_rows(sequences: list[NDArray[np.int32]], pad: int, counted_from: list[int] | None = None) -> Rows:
    """Lay `sequences`, none of them empty, side by side."""
    lengths = [len(sequence) for sequence in sequences]
    items = torch.full((len(sequences), max(lengths)), pad)
    for row, sequence in enumerate(sequences):
        items[row, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
    first = [1] * len(sequences) if counted_from is None else counted_from
    return Rows(items, torch.tensor(lengths), torch.tensor(first))


def closed_up(is_empty: Tensor) -> Tensor:
    """[B, S] -> [B, most that is there in a row]: the places of what is there, in order, then of what is empty."""
    longest = int((~is_empty).sum(dim=1).max())
    return is_empty.byte().argsort(dim=1, stable=True)[:, :longest]


@dataclass(frozen=True, eq=False)
class TrainingWindows:
    """The training parts of all users, cut so that every target is counted once and read with a long context.

    A user with more than `history` + 1 items has several windows of that many items, each half a history further; a
    target counts in the first window that holds it, so that at least half a history, or all there is, lies before it.
    """

    data: SequenceData
    starts: NDArray[np.int64]
    """[W] place in `data.items` of the oldest item"""
    ends: NDArray[np.int64]
    """[W] place after the newest one"""
    counted_from: NDArray[np.int64]
    """[W] as `Rows.counted_from`"""

    @classmethod
    def of(cls, data: SequenceData, history: int) -> TrainingWindows:
        size, step = history + 1, max(1, history // 2)
        starts, ends, counted = [], [], []
        for oldest, newest in zip(data.offsets[:-1].tolist(), data.training_ends.tolist(), strict=True):
            if newest - oldest < 2:
                continue
            end = min(oldest + size, newest)
            covered = oldest + 1
            while True:
                start = max(oldest, end - size)
                starts.append(start)
                ends.append(end)
                counted.append(covered - start)
                if end == newest:
                    break
                covered, end = end, min(end + step, newest)
        return cls(data, np.array(starts), np.array(ends), np.array(counted))

    def __len__(self) -> int:
        return len(self.starts)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Rows]:
        """All windows once, in random order, `size` at a time."""
        order = rng.permutation(len(self))
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            sequences = [self.data.items[self.starts[one] : self.ends[one]] for one in chosen]
            yield to_rows(sequences, self.data.num_items, self.counted_from[chosen].tolist())


def history_rows(data: SequenceData, users: NDArray[np.int64], split: Split, history: int) -> Rows:
    """The newest `history` items before the held-out item of each user."""
    ends = ends_of(data, users, split)
    starts = np.maximum(data.offsets[users], ends - history)
    return to_rows(
        [data.items[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)], data.num_items
    )
