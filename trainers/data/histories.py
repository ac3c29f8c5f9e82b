"""Histories and held-out items of users: what a prediction may read, and what it must find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.data.sequence_data import SequenceData, Split, ranges
from trainers.data.splits import NONE

_REPEATS_AT_ONCE = 1 << 16
"""Users whose histories are searched for their targets at a time."""


def history_and_target(data: SequenceData, user: int, split: Split) -> tuple[NDArray[np.int32], int]:
    """What may be read, oldest to newest, and what must be found: the test history holds the validation item."""
    start, end = (int(place) for place in (data.offsets[user], ends_of(data, np.array([user]), split)[0]))
    return data.items[start:end], int(data.items[end])


def ends_of(data: SequenceData, users: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """[B] place in `data.items` of each user's held-out item: where the history, from `data.offsets[user]` on, ends.

    Raises:
        ValueError: one of `users` has none.
    """
    ends = data.places(split, users)
    if (ends == NONE).any():
        raise ValueError(f"{int((ends == NONE).sum())} of the users have no {split} item")
    return ends


def repeats(data: SequenceData, users: NDArray[np.int64], split: Split) -> NDArray[np.bool_]:
    """[B] whether each user's target occurs in the history."""
    found = []
    for first in range(0, len(users), _REPEATS_AT_ONCE):
        chunk = users[first : first + _REPEATS_AT_ONCE]
        rows, items = histories(data, chunk, split)
        targets = data.items[ends_of(data, chunk, split)]
        found.append(np.bincount(rows[items == targets[rows]], minlength=len(chunk)) > 0)
    return np.concatenate(found)


def histories(
    data: SequenceData, users: NDArray[np.int64], split: Split
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The histories of `users`, one after another: place in `users` [P] and item [P] of each interaction."""
    starts = data.offsets[users]
    lengths = ends_of(data, users, split) - starts
    return np.repeat(np.arange(len(users)), lengths), np.asarray(data.items[ranges(starts, lengths)])
