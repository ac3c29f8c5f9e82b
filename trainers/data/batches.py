"""From a drawn `Step`, or histories to score, to the tensors that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import ModelConfig, columns_of
from trainers.data.rows import ALIGN, NO_COLUMN, SEQ, Rows, pack_rows
from trainers.data.sequence_data import ItemTokens
from trainers.data.step import Step

ALIGN_PROMPT = "Give the ID of the item described by:"
"""Paper, 2.2.2."""


@dataclass(frozen=True)
class Layout:
    """How items become rows: the text, and which collaborative columns the rows see."""

    item_tokens: ItemTokens
    prompt: tuple[int, ...]
    """Tokens of `ALIGN_PROMPT`"""
    bos_token: int | None
    """Put before each row, or None"""
    known_items: NDArray[np.bool_]
    """[I] whether M_cf has seen the item in training; one that it has not seen gets no column"""
    user_column: bool
    item_column: bool
    align_column: bool

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        item_tokens: ItemTokens,
        prompt: Sequence[int],
        bos_token: int | None,
        known_items: NDArray[np.bool_],
    ) -> Layout:
        columns = columns_of(config)
        return cls(
            item_tokens,
            tuple(prompt),
            bos_token if config.leading_bos else None,
            known_items,
            user_column="user" in columns,
            item_column="item" in columns,
            align_column="item" in columns and config.align_sees_item_column,
        )

    def _item_columns(self, inputs: Sequence[Sequence[int]], shown: bool) -> list[list[int]]:
        return [[item if shown and self.known_items[item] else NO_COLUMN for item in row] for row in inputs]

    def histories(
        self,
        inputs: Sequence[Sequence[int]],
        users: Sequence[int],
        *,
        hidden_user_columns: frozenset[int] = frozenset(),
        read_newest: int | None = None,
        cached: Sequence[int] | None = None,
    ) -> Rows:
        """Rows `{T_1, [SEQ], ..., T_n, [SEQ]}` (paper, 2.2.3). A user of -1 is unknown to M_cf (ruling 4).

        With `cached` (see `pack_rows`) they are the ends of such rows.
        """
        column_users = [
            user if self.user_column and user >= 0 and row not in hidden_user_columns else NO_COLUMN
            for row, user in enumerate(users)
        ]
        return pack_rows(
            inputs,
            self.item_tokens,
            kind=SEQ,
            bos_token=self.bos_token if cached is None else None,
            column_items=self._item_columns(inputs, self.item_column),
            column_users=column_users,
            read_newest=read_newest,
            cached=cached,
        )

    def unread(self) -> Rows:
        """A row without a target: for a pass that is made for others' sake (`trainers.model.sharding`)."""
        return self.histories([(0,)], [NO_COLUMN])

    def alignments(self, items: Sequence[int]) -> Rows:
        """Rows `{Prompt, T_i, [ALIGN]}`, each one item as a whole (paper, 2.2.2)."""
        inputs = [(item,) for item in items]
        return pack_rows(
            inputs,
            self.item_tokens,
            kind=ALIGN,
            prefix=self.prompt,
            bos_token=self.bos_token,
            column_items=self._item_columns(inputs, self.align_column),
            column_users=[NO_COLUMN] * len(items),
        )


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step. A part that has no term here is None or empty."""

    histories: Rows | None
    targets: Tensor
    """[Q] item that follows each readout of `histories`"""
    alignments: Rows | None
    """One row for each distinct item that L_align or L_cl needs: encoded once, used by both"""
    align_items: Tensor
    """[E] item of each row of `alignments`"""
    align_terms: Tensor
    """[A] rows of `alignments` that are terms of L_align"""
    anchors: Tensor
    """[C] readouts of `histories` that are terms of L_cl"""
    candidates: Tensor
    """[C, 1 + n_cl] rows of `alignments`: the positive, then the negatives"""
    collaborative_users: Tensor
    """[P]"""
    collaborative_positives: Tensor
    """[P]"""
    collaborative_negatives: Tensor
    """[P, k]"""
    seed: int
    """Of the dropout before the item projection"""
    sampled_items: Tensor
    """[S] items that stand for the catalogue in a sampled loss; empty for the exact one"""

    @property
    def counts(self) -> dict[str, int]:
        """Terms of each loss: what its sum is divided by, after adding up the workers' counts."""
        return {
            "seq": len(self.targets),
            "align": len(self.align_terms),
            "contrastive": len(self.anchors),
            "collaborative": len(self.collaborative_users),
        }

    @property
    def num_tokens(self) -> int:
        return sum(len(rows.tokens) for rows in (self.histories, self.alignments) if rows is not None)


def collate(step: Step, layout: Layout) -> Batch:
    """Pack a step. Every draw in it is kept; nothing random happens here."""
    first_readout = np.concatenate([[0], np.cumsum([len(row) for row in step.inputs])])
    drawn = [(anchor.positive, *anchor.negatives) for anchor in step.anchors]
    encoded = list(dict.fromkeys([*step.align_items, *(item for row in drawn for item in row)]))
    row_of = {item: row for row, item in enumerate(encoded)}
    return Batch(
        histories=layout.histories(step.inputs, step.users, hidden_user_columns=step.hidden_user_columns)
        if step.inputs
        else None,
        targets=_indices([target for row in step.targets for target in row]),
        alignments=layout.alignments(encoded) if encoded else None,
        align_items=_indices(encoded),
        align_terms=_indices([row_of[item] for item in step.align_items]),
        anchors=_indices([int(first_readout[anchor.row]) + anchor.position for anchor in step.anchors]),
        candidates=_indices([[row_of[item] for item in row] for row in drawn]),
        collaborative_users=_indices([draw.user for draw in step.collaborative]),
        collaborative_positives=_indices([draw.positive for draw in step.collaborative]),
        collaborative_negatives=_indices([draw.negatives for draw in step.collaborative]),
        seed=step.seed,
        sampled_items=_indices(step.sampled_items),
    )


def _indices(values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
