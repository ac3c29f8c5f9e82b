"""Full-ranking evaluation of a model: every user scored exactly once, by whichever worker holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.batches import Layout
from trainers.data.sequence_data import SequenceData
from trainers.device import move, rank_and_workers
from trainers.model.mixrec import MixRec
from trainers.ranks import Setting, Split, UserRanks, concatenate, ends_of, evaluate_scores

TOKENS_AT_ONCE = 4096
"""Tokens of one forward pass. On a CPU, passes of 1024 to 8192 tokens and of 16 rows all took the same time, so this is
about memory: a budget of tokens bounds it however long the histories are, a number of rows does not."""
WINDOWS_AT_ONCE = 1 << 16
"""Users whose windows are found at a time."""


def score_histories(
    model: MixRec, layout: Layout, histories: Sequence[Sequence[int]], users: Sequence[int], *, read_newest: int = 1
) -> Tensor:
    """Scores [B * read_newest, I] of the whole catalogue after the newest items of each history: row by row, oldest
    item first.

    Args:
        histories: [B][n] items, all of which are read; at least `read_newest` a row.
        users: [B] M_cf's index of each user, or -1 for one that it does not know.
    """
    device = model.backbone.device
    lengths = layout.item_tokens.lengths + 1
    tokens = np.array([lengths[list(row)].sum() for row in histories])
    # Rows of like length together: attention runs in batches of equal shape.
    order = np.argsort(tokens, kind="stable")
    total, before = int(tokens.sum()), np.cumsum(tokens[order]) - tokens[order]
    # Equal shares of all tokens, not full passes and a small rest.
    share = before * -(-total // TOKENS_AT_ONCE) // total
    scores = []
    for chosen in np.split(order, np.flatnonzero(np.diff(share)) + 1):
        rows = layout.histories(
            [histories[row] for row in chosen], [users[row] for row in chosen], read_newest=read_newest
        )
        with torch.inference_mode():
            scores.append(model.scores(move(rows, device)).float())
    by_row = torch.cat(scores).view(len(order), -1)
    return by_row[torch.from_numpy(order.argsort()).to(device)].view(len(order) * read_newest, -1)


@dataclass(frozen=True)
class HistoryWindows:
    """The part of each of N histories that the backbone reads: the newest items that fit (ruling 7)."""

    first: NDArray[np.int64]
    """[N] place of the oldest item that is read"""
    end: NDArray[np.int64]
    """[N] place after the newest one"""
    tokens: NDArray[np.int64]
    """[N]"""

    @classmethod
    def of(
        cls,
        model: MixRec,
        layout: Layout,
        items: NDArray[np.int32],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        history: int,
    ) -> HistoryWindows:
        """Of histories that stand in `items` one after another, from `starts` [N] up to `ends` [N].

        Args:
            history: the most items that are read.
        """
        context = model.backbone.max_positions - (layout.bos_token is not None)
        lengths = layout.item_tokens.lengths + 1
        firsts, tokens = np.empty(len(starts), dtype=np.int64), np.empty(len(starts), dtype=np.int64)
        for place in range(0, len(starts), WINDOWS_AT_ONCE):
            part = slice(place, place + WINDOWS_AT_ONCE)
            offset = int(starts[part][0])
            start, end = starts[part] - offset, ends[part] - offset
            before = np.concatenate([[0], np.cumsum(lengths[items[offset : offset + int(end[-1])]])])
            fitting = np.searchsorted(before, before[end] - context)
            first = np.maximum(np.maximum(start, end - history), fitting)
            firsts[part], tokens[part] = first + offset, before[end] - before[first]
        return cls(firsts, ends, tokens)

    def __getitem__(self, chosen: NDArray[np.int64]) -> HistoryWindows:
        return HistoryWindows(self.first[chosen], self.end[chosen], self.tokens[chosen])


def window(model: MixRec, layout: Layout, items: NDArray[np.int32], history: int) -> list[int]:
    """The newest of `items` that the backbone reads."""
    (first,) = HistoryWindows.of(model, layout, items, np.array([0]), np.array([len(items)]), history).first
    return [int(item) for item in items[first:]]


def evaluate(
    model: MixRec, layout: Layout, data: SequenceData, settings: Sequence[Setting], history: int
) -> tuple[UserRanks, ...]:
    """Rank the held-out items of every user of `data`, the users that the model was trained on, in one pass over them.

    Where torch.distributed is initialised, each worker scores its share and all get the whole tables.

    Returns:
        One table for each of `settings`, in their order.
    """
    model.eval()
    everybody = np.arange(data.num_users)
    windows = {
        split: HistoryWindows.of(model, layout, data.items, data.offsets[:-1], ends_of(data, everybody, split), history)
        for split in {setting.split for setting in settings}
    }

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        scores = _score_windows(model, layout, data, users, {split: windows[split][users] for split in splits})
        return [scores[split] for split in splits]

    rank, workers = rank_and_workers()
    mine = np.array_split(everybody, workers)[rank]
    parts: list[tuple[UserRanks, ...] | None] = [None]
    if len(mine):
        # Users of like length are asked for together, so that each pass has long runs of equal rows.
        tokens = np.sum([windows[split].tokens[mine] for split in windows], axis=0)
        parts = [evaluate_scores(data, settings, score, users=mine[np.argsort(tokens, kind="stable")])]
    if workers > 1:
        (part,), parts = parts, [None] * workers
        dist.all_gather_object(parts, part)
    found = [part for part in parts if part is not None]
    return tuple(concatenate([part[place] for part in found]) for place in range(len(settings)))


def _score_windows(
    model: MixRec,
    layout: Layout,
    data: SequenceData,
    users: NDArray[np.int64],
    windows: Mapping[Split, HistoryWindows],
) -> dict[Split, Tensor]:
    """Scores [B, I] after the windows [B] of each split, one row of tokens giving two of them where it can."""
    shared = np.zeros(len(users), dtype=np.bool_)
    if len(windows) == 2:
        # A test window that begins where the validation window does is that window with one item more, and no item
        # changes an earlier state: the row's last two readouts are both predictions.
        test = windows["test"]
        shared = (test.first == windows["validation"].first) & (test.end - test.first >= 2)
    scores = {split: torch.empty(len(users), data.num_items, device=model.backbone.device) for split in windows}
    jobs: list[tuple[NDArray[np.bool_], tuple[Split, ...]]] = [(shared, ("validation", "test"))]
    jobs += [(~shared, (split,)) for split in windows]
    for wanted, splits in jobs:
        chosen = np.flatnonzero(wanted)
        if not len(chosen):
            continue
        read = windows[splits[-1]][chosen]
        histories = [data.items[first:end].tolist() for first, end in zip(read.first, read.end, strict=True)]
        found = score_histories(model, layout, histories, users[chosen].tolist(), read_newest=len(splits))
        for place, split in enumerate(splits):
            scores[split][torch.from_numpy(chosen)] = found[place :: len(splits)]
    return scores
