"""Full-ranking evaluation of a model: every user scored exactly once, by whichever worker holds it."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.batches import Layout
from trainers.data.sampler import newest_that_fit
from trainers.data.sequence_data import SequenceData
from trainers.device import autocast, move, rank_and_workers
from trainers.model.mixrec import MixRec
from trainers.ranks import Split, UserRanks, concatenate, evaluate_scores, history_and_target

USERS_AT_ONCE = 16
"""Histories in one forward pass: enough to fill the matrix units of a CPU, little memory at 50 items of 31 tokens."""


def score_histories(model: MixRec, layout: Layout, histories: list[list[int]], users: list[int]) -> Tensor:
    """Scores [B, I] of the whole catalogue after each history, whose newest items that fit are read.

    Args:
        users: M_cf's index of each user, or -1 for one that it does not know.
    """
    device = model.backbone.device
    scores = []
    for first in range(0, len(histories), USERS_AT_ONCE):
        part = slice(first, first + USERS_AT_ONCE)
        rows = layout.histories(histories[part], users[part], read_newest=1)
        with torch.inference_mode(), autocast(device):
            scores.append(model.scores(move(rows, device)).float().cpu())
    return torch.cat(scores)


def window(model: MixRec, layout: Layout, items: NDArray[np.int32], history: int) -> list[int]:
    """The newest of `items` that the backbone reads (ruling 7)."""
    context = model.backbone.max_positions - (layout.bos_token is not None)
    kept = newest_that_fit(items, layout.item_tokens, history, context)
    return [int(item) for item in items[len(items) - kept :]]


def evaluate(
    model: MixRec, layout: Layout, data: SequenceData, split: Split, history: int, *, exclude_seen: bool = False
) -> UserRanks:
    """Rank the held-out item of every user of `data`, the users that the model was trained on.

    Where torch.distributed is initialised, each worker scores its share and all get the whole table.
    """
    model.eval()

    def score(users: NDArray[np.int64]) -> Tensor:
        histories = [window(model, layout, history_and_target(data, int(user), split)[0], history) for user in users]
        # Rows of like length together: the causal branch pads to the longest row of a forward pass.
        order = sorted(range(len(users)), key=lambda row: len(histories[row]))
        scores = score_histories(model, layout, [histories[row] for row in order], [int(users[row]) for row in order])
        return scores[torch.tensor(order).argsort()]

    rank, workers = rank_and_workers()
    if workers == 1:
        return evaluate_scores(data, split, score, exclude_seen=exclude_seen)
    mine = np.array_split(np.arange(data.num_users), workers)[rank]
    part = None
    if len(mine):
        part = evaluate_scores(
            data.select_users(mine), split, lambda users: score(mine[users]), exclude_seen=exclude_seen, counted_on=data
        )
    parts: list[UserRanks | None] = [None] * workers
    dist.all_gather_object(parts, part)
    return concatenate([found for found in parts if found is not None])
