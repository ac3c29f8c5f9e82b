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
from trainers.data.sequence_data import ItemTokens, SequenceData
from trainers.data.step import CollaborativeDraw, ContrastiveAnchor, Step
from trainers.data.windows import Windows

_BUCKET = 32
"""Batches that are sorted by length together: enough to even out lengths, few enough to keep the order random."""

_ORDER, _DRAWS = 0, 1


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
        return np.flatnonzero(self.data.training_lengths >= 2)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.users) // self.config.training.batch_size)

    @cached_property
    def windows(self) -> Windows:
        """Of each user's training items but the last, which is only a target; found once for all epochs."""
        starts = np.asarray(self.data.offsets[:-1])
        ends = np.maximum(self.data.training_ends - 1, starts)
        return Windows.of(self.data.items, starts, ends, self.item_tokens, self.config.data.history, self.context)

    def window(self, user: int) -> NDArray[np.int32]:
        """The newest training items of a user: all but the last are inputs, all but the first are targets."""
        first = self.windows.first[user]
        return self.data.training(user)[first - self.data.offsets[user] :]

    def share_of_targets_kept(self) -> float:
        """Of all next-item targets in the training part, those inside the windows."""
        ends = self.data.training_ends[self.users] - 1
        kept = int((ends - self.windows.first[self.users]).sum())
        total = int((ends - self.data.offsets[:-1][self.users]).sum())
        return kept / total if total else 0.0

    def epoch(self, epoch: int) -> Iterator[Step]:
        """The global steps of one epoch (from 1): every user once, every item of the align share once."""
        rng = np.random.default_rng([self.seed, epoch, _ORDER])
        align = rng.permutation(self.data.num_items)
        align = align[: round(self.config.training.align_share * len(align))]
        if self.config.training.lambda_align == 0:
            align = align[:0]
        steps, size = self.steps_per_epoch, self.config.training.batch_size
        order, batches = self._batches(rng)
        for number, batch in enumerate(batches.tolist()):
            users, items = order[batch * size : (batch + 1) * size], _part(align, steps, number)
            yield self._draw(np.random.default_rng([self.seed, epoch, _DRAWS, number]), users, items)

    def _batches(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Users in an order whose consecutive batches are of like length, [users], and the batches' order, [steps]."""
        order = rng.permutation(self.users)
        bucket = np.arange(len(order)) // (self.config.training.batch_size * _BUCKET)
        # Stable: rows of one length stay in their random order. A bucket is whole batches, but for the last one.
        order = order[np.lexsort((self.windows.tokens[order], bucket))]
        return order, rng.permutation(self.steps_per_epoch)

    def _draw(self, rng: np.random.Generator, users: NDArray[np.int64], align: NDArray[np.int64]) -> Step:
        training, model = self.config.training, self.config.model
        windows = [self.window(int(user)) for user in users]
        anchors = self._anchors(rng, windows) if training.lambda_contrastive > 0 else []
        align_items: list[int] = []
        if training.lambda_align > 0:
            contrasted = (item for anchor in anchors for item in (anchor.positive, *anchor.negatives))
            align_items = list(dict.fromkeys([*contrasted, *align.tolist()]))
        hidden = np.flatnonzero(rng.random(len(users)) < model.user_column_dropout)
        collaborative = tuple(self._collaborative(rng, users, windows))
        return Step(
            users=tuple(users.tolist()),
            inputs=tuple(tuple(window[:-1].tolist()) for window in windows),
            targets=tuple(tuple(window[1:].tolist()) for window in windows),
            anchors=tuple(anchors),
            align_items=tuple(align_items),
            collaborative=collaborative,
            hidden_user_columns=frozenset(hidden.tolist()),
            seed=int(rng.integers(2**31)),
            sampled_items=self._sampled_items(rng),
        )

    def _sampled_items(self, rng: np.random.Generator) -> tuple[int, ...]:
        if self.config.training.item_loss == "full":
            return ()
        count = min(self.config.training.sampled_items, self.data.num_items)
        return tuple(rng.choice(self.data.num_items, size=count, replace=False).tolist())

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
        is_trained = self.config.training.lambda_collaborative > 0 and columns_of(self.config.model)
        if not is_trained or self.config.model.collaborative_training == "frozen":
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


def _part(items: NDArray[np.int64], parts: int, number: int) -> NDArray[np.int64]:
    """`np.array_split(items, parts)[number]`, without the other parts."""
    least, longer = divmod(len(items), parts)
    first = number * least + min(number, longer)
    return items[first : first + least + (number < longer)]


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
        sampled_items=step.sampled_items,
        seed=step.seed + rank,
    )
