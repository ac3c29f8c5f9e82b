"""Full-ranking evaluation of a model: every user scored exactly once, by whichever worker holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.batches import Layout
from trainers.data.rows import Rows
from trainers.data.sequence_data import SequenceData, Split
from trainers.data.windows import Windows
from trainers.device import move, rank_and_workers
from trainers.model.mixrec import MixRec
from trainers.ranks import Setting, UserRanks, concatenate, evaluate_scores

UNKNOWN_USER = -1
"""To M_cf"""
TOKENS_AT_ONCE = 4096
"""Tokens of one forward pass. On a CPU, passes of 1024 to 8192 tokens and of 16 rows all took the same time, so this is
about memory: a budget of tokens bounds it however long the histories are, a number of rows does not."""


def passes(
    layout: Layout, histories: Sequence[Sequence[int]], users: Sequence[int], *, read_newest: int = 1
) -> Iterator[tuple[NDArray[np.int64], Rows]]:
    """The forward passes that score `histories`: which of them each one reads, and their rows of tokens.

    Args: as `score_histories`.
    """
    lengths = layout.item_tokens.lengths + 1
    for chosen in of_like_length(np.array([lengths[list(row)].sum() for row in histories])):
        read, readers = [histories[row] for row in chosen], [users[row] for row in chosen]
        yield chosen, layout.histories(read, readers, read_newest=read_newest)


def of_like_length(tokens: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of `tokens` [B] each, divided among forward passes: the places [B] of the rows of each pass."""
    # Rows of like length together: attention runs in batches of equal shape.
    order = np.argsort(tokens, kind="stable")
    total, before = int(tokens.sum()), np.cumsum(tokens[order]) - tokens[order]
    # Equal shares of all tokens, not full passes and a small rest.
    share = before * -(-total // TOKENS_AT_ONCE) // total
    return np.split(order, np.flatnonzero(np.diff(share)) + 1)


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
    order, scores = [], []
    for chosen, rows in passes(layout, histories, users, read_newest=read_newest):
        order.append(chosen)
        with torch.inference_mode():
            scores.append(model.scores(move(rows, device)).float())
    places = torch.from_numpy(np.concatenate(order).argsort()).to(device)
    return torch.cat(scores).view(len(places), -1)[places].view(len(places) * read_newest, -1)


def known_users(model: MixRec, data: SequenceData) -> NDArray[np.int64]:
    """[U] users as M_cf knows them: `UNKNOWN_USER` where it has trained no vector of theirs, which would be noise."""
    # Whoever has no next item to predict is in no step; a pretraining takes every interaction.
    least = 1 if model.config.collaborative_training == "frozen" else 2
    return np.where(data.training_lengths >= least, np.arange(data.num_users), UNKNOWN_USER)


def context_of(model: MixRec, layout: Layout) -> int:
    """Tokens that a history may have, a leading BOS not counted."""
    return model.backbone.max_positions - (layout.bos_token is not None)


def window(model: MixRec, layout: Layout, items: NDArray[np.int32], history: int) -> list[int]:
    """The newest of `items` that the backbone reads."""
    whole = np.array([0]), np.array([len(items)])
    (first,) = Windows.of(items, *whole, layout.item_tokens, history, context_of(model, layout)).first
    return [int(item) for item in items[first:]]


def windows_of(model: MixRec, layout: Layout, data: SequenceData, split: Split, history: int) -> Windows:
    """[N] what the model reads of every user before its item of `split`."""
    # Where a user has no such item the window is empty, and is not asked for.
    ends = np.maximum(data.places(split, np.arange(data.num_users)), data.offsets[:-1])
    context = context_of(model, layout)
    return Windows.of(data.items, data.offsets[:-1], ends, layout.item_tokens, history, context)


def items_of(data: SequenceData, windows: Windows) -> list[list[int]]:
    """The items of each window, oldest first."""
    return [data.items[first:end].tolist() for first, end in zip(windows.first, windows.end, strict=True)]


def evaluate(
    model: MixRec, layout: Layout, data: SequenceData, settings: Sequence[Setting], history: int
) -> tuple[UserRanks, ...]:
    """Rank the held-out items of every user of `data`, the users that the model was trained on, in one pass over them;
    in one for each split where not all users have the items of both.

    Where torch.distributed is initialised, each worker scores its share and all get the whole tables.

    Returns:
        One table for each of `settings`, in their order.
    """
    splits = tuple(dict.fromkeys(setting.split for setting in settings))
    if len(splits) > 1 and data.held_out is not None:
        of_splits = {
            split: iter(evaluate(model, layout, data, [one for one in settings if one.split == split], history))
            for split in splits
        }
        return tuple(next(of_splits[setting.split]) for setting in settings)
    model.eval()
    windows = {split: windows_of(model, layout, data, split, history) for split in splits}
    known = known_users(model, data)

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        scores = _score_windows(model, layout, data, known[users], {split: windows[split][users] for split in splits})
        return [scores[split] for split in splits]

    rank, workers = rank_and_workers()
    mine = np.array_split(data.users_with(splits[0]), workers)[rank]
    # Users of like length are asked for together, so that each pass has long runs of equal rows.
    order = np.argsort(np.sum([windows[split].tokens[mine] for split in windows], axis=0), kind="stable")
    parts: list[tuple[UserRanks, ...] | None]
    with model.backbone.passes_that_differ():
        parts = [evaluate_scores(data, settings, score, users=mine[order])] if len(mine) else [None]
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
    windows: Mapping[Split, Windows],
) -> dict[Split, Tensor]:
    """Scores [B, I] after the windows [B] of each split, of users as `known_users` has them, one row of tokens giving
    two of them where it can."""
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
        found = score_histories(model, layout, items_of(data, read), users[chosen].tolist(), read_newest=len(splits))
        for place, split in enumerate(splits):
            scores[split][torch.from_numpy(chosen)] = found[place :: len(splits)]
    return scores
