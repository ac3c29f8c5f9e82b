"""Draws the steps of an epoch. Every draw comes from a counter-based seed (training seed, epoch, step).

So a resumed training draws what the uninterrupted one would have drawn, and all workers agree on the global batch
without talking; each then takes its share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainers.config import FinetuneConfig, columns_of
from trainers.data.hard_negatives import HardSets
from trainers.data.sequence_data import HELD_OUT, ItemTokens, SequenceData
from trainers.data.step import CollaborativeDraw, ContrastiveAnchor, Step

_BUCKET = 32
"""Batches that are sorted by length together: enough to even out lengths, few enough to keep the order random."""

_ORDER, _DRAWS = 0, 1


def newest_that_fit(items: NDArray[np.int32], item_tokens: ItemTokens, history: int, context: int) -> int:
    """How many of the newest `items` make a row: at most `history`, and at most `context` tokens (ruling 7)."""
    newest = items[::-1][:history]
    return int(np.searchsorted(np.cumsum(item_tokens.lengths[newest] + 1), context, side="right"))


@dataclass(frozen=True)
class StepSampler:
    """The training part of some users, cut into windows, and how to draw from it."""

    config: FinetuneConfig
    data: SequenceData
    item_tokens: ItemTokens
    hard_sets: HardSets
    context: int
    """Tokens that fit the backbone's context, a leading BOS not counted"""
    seed: int

    @cached_property
    def users(self) -> NDArray[np.int64]:
        """Users with a next item to predict: at least two training items."""
        return np.flatnonzero(np.diff(self.data.offsets) >= HELD_OUT + 2)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.users) // self.config.training.batch_size)

    def window(self, user: int) -> NDArray[np.int32]:
        """The newest training items of a user: all but the last are inputs, all but the first are targets."""
        training = self.data.training(user)
        fitting = newest_that_fit(training[:-1], self.item_tokens, self.config.data.history, self.context)
        return training[len(training) - 1 - fitting :]

    def share_of_targets_kept(self) -> float:
        """Of all next-item targets in the training part, those inside the windows."""
        kept = sum(len(self.window(int(user))) - 1 for user in self.users)
        total = sum(len(self.data.training(int(user))) - 1 for user in self.users)
        return kept / total if total else 0.0

    def epoch(self, epoch: int) -> Iterator[Step]:
        """The global steps of one epoch (from 1): every user once, every item of the align share once."""
        rng = np.random.default_rng([self.seed, epoch, _ORDER])
        align = rng.permutation(self.data.num_items)
        align = align[: round(self.config.training.align_share * len(align))]
        if self.config.training.lambda_align == 0:
            align = align[:0]
        shares = np.array_split(align, self.steps_per_epoch)
        for number, (users, items) in enumerate(zip(self._batches(rng), shares, strict=True)):
            yield self._draw(np.random.default_rng([self.seed, epoch, _DRAWS, number]), users, items)

    def _batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Users in random batches of like length."""
        size = self.config.training.batch_size
        order = rng.permutation(self.users)
        tokens = np.array([self.item_tokens.lengths[self.window(int(user))].sum() for user in order])
        batches = []
        for start in range(0, len(order), size * _BUCKET):
            bucket = slice(start, start + size * _BUCKET)
            by_length = order[bucket][np.argsort(tokens[bucket], kind="stable")]
            batches += [by_length[first : first + size] for first in range(0, len(by_length), size)]
        return [batches[position] for position in rng.permutation(len(batches))]

    def _draw(self, rng: np.random.Generator, users: NDArray[np.int64], align: NDArray[np.int64]) -> Step:
        training, model = self.config.training, self.config.model
        windows = [self.window(int(user)) for user in users]
        anchors = self._anchors(rng, windows) if training.lambda_contrastive > 0 else []
        align_items: list[int] = []
        if training.lambda_align > 0:
            contrasted = (item for anchor in anchors for item in (anchor.positive, *anchor.negatives))
            align_items = list(dict.fromkeys([*contrasted, *align.tolist()]))
        hidden = np.flatnonzero(rng.random(len(users)) < model.user_column_dropout)
        return Step(
            users=tuple(users.tolist()),
            inputs=tuple(tuple(window[:-1].tolist()) for window in windows),
            targets=tuple(tuple(window[1:].tolist()) for window in windows),
            anchors=tuple(anchors),
            align_items=tuple(align_items),
            collaborative=tuple(self._collaborative(rng, users, windows)),
            hidden_user_columns=frozenset(hidden.tolist()),
        )

    def _anchors(self, rng: np.random.Generator, windows: list[NDArray[np.int32]]) -> list[ContrastiveAnchor]:
        training = self.config.training
        anchors = []
        for row, window in enumerate(windows):
            count = min(training.anchors_per_user, len(window) - 1)
            for position in sorted(rng.choice(len(window) - 1, size=count, replace=False).tolist()):
                positive = int(window[position + 1])
                negatives = self.hard_sets.sample(positive, training.contrastive_negatives, rng)
                anchors.append(ContrastiveAnchor(row, position, positive, tuple(int(item) for item in negatives)))
        return anchors

    def _collaborative(
        self, rng: np.random.Generator, users: NDArray[np.int64], windows: list[NDArray[np.int32]]
    ) -> Iterator[CollaborativeDraw]:
        """Every item of each window as a positive; negatives are items outside the user's training part (ruling 17)."""
        if self.config.training.lambda_collaborative == 0 or not columns_of(self.config.model):
            return
        num_items, per_positive = self.data.num_items, self.config.training.collaborative_negatives
        for user, window in zip(users.tolist(), windows, strict=True):
            seen = np.unique(self.data.training(user))
            if len(seen) == num_items:
                continue
            # The r-th unseen item, counted without building the complement: shift r past the seen items below it.
            ranks = rng.integers(num_items - len(seen), size=(len(window), per_positive))
            negatives = ranks + np.searchsorted(seen - np.arange(len(seen)), ranks, side="right")
            for positive, row in zip(window.tolist(), negatives.tolist(), strict=True):
                yield CollaborativeDraw(user, positive, tuple(row))


def share(step: Step, rank: int, workers: int) -> Step:
    """One worker's part of a global step: every term of every loss goes to exactly one worker.

    The terms of L_align go first to a worker that encodes the item anyway for its contrastive anchors, so that as
    few items as possible are encoded twice; the rest evens out the load.
    """
    if workers == 1:
        return step
    rows = range(rank, len(step.users), workers)
    new_row = {row: index for index, row in enumerate(rows)}
    owner: dict[int, int] = {}
    for anchor in step.anchors:
        for item in (anchor.positive, *anchor.negatives):
            owner.setdefault(item, anchor.row % workers)
    load = np.zeros(workers, dtype=np.int64)
    mine = []
    for item in sorted(step.align_items, key=lambda item: item not in owner):
        worker = owner.get(item, int(load.argmin()))
        load[worker] += 1
        if worker == rank:
            mine.append(item)
    own_users = {step.users[row] for row in rows}
    return Step(
        users=tuple(step.users[row] for row in rows),
        inputs=tuple(step.inputs[row] for row in rows),
        targets=tuple(step.targets[row] for row in rows),
        anchors=tuple(
            ContrastiveAnchor(new_row[anchor.row], anchor.position, anchor.positive, anchor.negatives)
            for anchor in step.anchors
            if anchor.row in new_row
        ),
        align_items=tuple(mine),
        collaborative=tuple(draw for draw in step.collaborative if draw.user in own_users),
        hidden_user_columns=frozenset(new_row[row] for row in step.hidden_user_columns if row in new_row),
    )
