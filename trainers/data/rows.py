"""Token rows without padding: how sequences of item sentences become flat tensors, and how attention groups them.

All tokens of a batch lie in one flat list of M tokens, so that every linear map works on real tokens only. Attention
alone needs groups: the causal branch groups tokens by row, the context branch by item, which makes it block-diagonal
(paper, 2.3.1). `Groups` holds the padded index of such a grouping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.sequence_data import ItemTokens

SEQ, ALIGN = 0, 1
"""Rows of the special-token parameter."""
NO_COLUMN = -1


@dataclass(frozen=True)
class Groups:
    """A partition of the M tokens into groups that attend within themselves."""

    slots: Tensor
    """[N, T] flat token index; a padded slot repeats the group's first token"""
    lengths: Tensor
    """[N] tokens of each group"""
    where: Tensor
    """[M] position of each token in the flattened [N * T]"""

    def gather(self, flat: Tensor) -> Tensor:
        """[M, heads, e] -> [N, heads, T, e]"""
        return flat[self.slots].transpose(1, 2)

    def scatter(self, grouped: Tensor) -> Tensor:
        """[N, heads, T, e] -> [M, heads * e]"""
        return grouped.transpose(1, 2).flatten(0, 1)[self.where].flatten(1)


@dataclass(frozen=True)
class Rows:
    """A batch of token rows, each a list of items. Row tokens, item tokens and readouts are in flat order."""

    tokens: Tensor
    """[M] vocabulary index; 0 where a special token stands"""
    positions: Tensor
    """[M] position inside the row, from 0"""
    special: Tensor
    """[R] flat index of the special token that ends each item"""
    kind: int
    """`SEQ` or `ALIGN`: which special token ends the items"""
    rows: Groups
    """The causal branch's groups: [B rows]"""
    blocks: Groups
    """The context branch's groups: one block per item, and one per leading BOS token"""
    starts: Tensor
    """[N] position of each block's first token"""
    column_items: Tensor
    """[N] item whose vector a block sees, or `NO_COLUMN`"""
    column_users: Tensor
    """[N] user whose vector a block sees, or `NO_COLUMN`"""
    readouts: Tensor
    """[Q] flat index of the states that are read, in row order"""
    readout_rows: Groups
    """The readouts grouped by row: [B, most readouts of a row]; `slots` index the Q readouts"""
    readout_blocks: Tensor
    """[Q] block of each readout"""


def _groups(lengths: NDArray[np.int64]) -> Groups:
    """Groups of consecutive flat positions with the given lengths."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    longest = int(lengths.max())
    inside = np.arange(longest)[None, :] < lengths[:, None]
    slots = np.where(inside, starts[:, None] + np.arange(longest)[None, :], starts[:, None])
    return Groups(torch.from_numpy(slots), torch.from_numpy(lengths), torch.from_numpy(np.flatnonzero(inside.ravel())))


def pack_rows(
    inputs: Sequence[Sequence[int]],
    item_tokens: ItemTokens,
    *,
    kind: int,
    prefix: Sequence[int] = (),
    bos_token: int | None = None,
    column_items: Sequence[Sequence[int]],
    column_users: Sequence[int],
    read_last_only: bool = False,
) -> Rows:
    """Lay out `inputs` as token rows.

    Args:
        inputs: [B][n] item indices of each row, at least one a row.
        kind: `SEQ` (histories) or `ALIGN` (one item a row, after the prompt `prefix`).
        prefix: tokens that belong to the first item of each row: the prompt of the alignment task (2.2.2).
        bos_token: put before each row; it belongs to no item (ruling 7).
        column_items: [B][n] item whose collaborative vector each input sees, or `NO_COLUMN`.
        column_users: [B] user whose vector each row sees, or `NO_COLUMN`.
        read_last_only: read only each row's last item (evaluation), not all of them (training).
    """
    counts = np.array([len(row) for row in inputs], dtype=np.int64)
    items = np.fromiter((item for row in inputs for item in row), dtype=np.int64, count=int(counts.sum()))
    sentence = item_tokens.lengths[items] + 1
    first = np.zeros(len(items), dtype=bool)
    first[np.concatenate([[0], np.cumsum(counts)[:-1]])] = True
    sentence[first] += len(prefix)

    has_bos = bos_token is not None
    block_row = np.repeat(np.arange(len(counts)), counts)
    lengths = sentence
    item_block = np.arange(len(items))
    if has_bos:
        # A block of one token in front of each row's first item.
        at = np.flatnonzero(first)
        lengths = np.insert(sentence, at, 1)
        item_block = item_block + np.cumsum(first)
        block_row = np.repeat(np.arange(len(counts)), counts + 1)
    blocks = _groups(lengths)
    row_lengths = np.bincount(block_row, weights=lengths, minlength=len(counts)).astype(np.int64)
    rows = _groups(row_lengths)

    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    block_starts = ends - lengths
    row_starts = np.cumsum(row_lengths) - row_lengths
    tokens = np.zeros(total, dtype=np.int64)
    special = ends[item_block] - 1
    for index, item in enumerate(items):
        begin, end = block_starts[item_block[index]], special[index]
        if first[index] and len(prefix):
            tokens[begin : begin + len(prefix)] = prefix
            begin += len(prefix)
        tokens[begin:end] = item_tokens.row(int(item))
    if bos_token is not None:
        tokens[row_starts] = bos_token

    block_items = np.full(len(lengths), NO_COLUMN, dtype=np.int64)
    block_users = np.full(len(lengths), NO_COLUMN, dtype=np.int64)
    block_items[item_block] = np.fromiter((c for row in column_items for c in row), dtype=np.int64, count=len(items))
    block_users[item_block] = np.repeat(np.asarray(column_users, dtype=np.int64), counts)

    if read_last_only:
        read = np.cumsum(counts) - 1
        read_counts = np.ones(len(counts), dtype=np.int64)
    else:
        read, read_counts = np.arange(len(items)), counts
    positions = np.arange(total) - np.repeat(row_starts, row_lengths)
    return Rows(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        special=torch.from_numpy(special),
        kind=kind,
        rows=rows,
        blocks=blocks,
        starts=torch.from_numpy(positions[block_starts]),
        column_items=torch.from_numpy(block_items),
        column_users=torch.from_numpy(block_users),
        readouts=torch.from_numpy(special[read]),
        readout_rows=_groups(read_counts),
        readout_blocks=torch.from_numpy(item_block[read]),
    )
