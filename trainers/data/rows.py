"""Token rows without padding: how sequences of item sentences become flat tensors, and how attention groups them.

All tokens of a batch lie in one flat list of M tokens, so that every linear map works on real tokens only. Attention
alone needs groups: the causal branch's segments are the rows, the context branch's are the items, which makes it
block-diagonal (paper, 2.3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.data.segments import Segments, Spans, segments
from trainers.data.sequence_data import ItemTokens

SEQ, ALIGN = 0, 1
"""Rows of the special-token parameter."""
NO_COLUMN = -1


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
    vocabulary: Tensor
    """[D] distinct values of `tokens`"""
    words: Tensor
    """[M] place of each token in `vocabulary`"""
    causal: Segments
    """Of the causal branch: the rows"""
    context: Segments
    """Of the context branch: the items, and each leading BOS token alone"""
    column_items: Tensor
    """Distinct items whose vectors some segment of the context branch sees"""
    column_users: Tensor
    """Distinct users, likewise; in `Segments.columns` they are counted after the items"""
    readouts: Tensor
    """[Q] flat index of the states that are read, in row order"""
    causal_readouts: Segments
    """The causal branch for the readouts alone"""
    context_readouts: Segments
    """The context branch for the readouts alone"""
    continues: bool = False
    """Whether earlier tokens of the rows are cached: `Segments.keys` then count them before the new ones of each row"""


def pack_rows(
    inputs: Sequence[Sequence[int]],
    item_tokens: ItemTokens,
    *,
    kind: int,
    prefix: Sequence[int] = (),
    bos_token: int | None = None,
    column_items: Sequence[Sequence[int]],
    column_users: Sequence[int],
    read_newest: int | None = None,
    cached: Sequence[int] | None = None,
) -> Rows:
    """Lay out `inputs` as token rows.

    Args:
        inputs: [B][n] item indices of each row, at least one a row.
        kind: `SEQ` (histories) or `ALIGN` (one item a row, after the prompt `prefix`).
        prefix: tokens that belong to the first item of each row: the prompt of the alignment task (2.2.2).
        bos_token: put before each row; it belongs to no item (ruling 7).
        column_items: [B][n] item whose collaborative vector each input sees, or `NO_COLUMN`.
        column_users: [B] user whose vector each row sees, or `NO_COLUMN`.
        read_newest: read only so many items at the end of each row (evaluation), or all of them (training).
        cached: [B] tokens of each row before `inputs` whose keys and values are at hand (`trainers.model.kv_cache`); a
            row that has some has had its BOS, so `bos_token` is None.
    """
    counts = np.array([len(row) for row in inputs], dtype=np.int64)
    items = np.fromiter((item for row in inputs for item in row), dtype=np.int64, count=int(counts.sum()))
    sentences = item_tokens.lengths[items]
    first = np.zeros(len(items), dtype=bool)
    first[np.cumsum(counts) - counts] = True

    # An item's block is its prefix, its sentence and its special token; a BOS token is a block of its own.
    lengths = sentences + 1 + first * len(prefix)
    item_block = np.arange(len(items))
    block_row = np.repeat(np.arange(len(counts)), counts)
    if bos_token is not None:
        lengths = np.insert(lengths, np.flatnonzero(first), 1)
        item_block = item_block + np.cumsum(first)
        block_row = np.repeat(np.arange(len(counts)), counts + 1)
    blocks = Spans.of_lengths(lengths)
    rows = Spans.of_lengths(np.bincount(block_row, weights=lengths, minlength=len(counts)).astype(np.int64))
    special = (blocks.starts + lengths - 1)[item_block]
    tokens = np.zeros(blocks.total, dtype=np.int64)
    tokens[Spans(special - sentences, sentences, blocks.total).indices()] = item_tokens.tokens[
        Spans(item_tokens.offsets[items], sentences, len(item_tokens.tokens)).indices()
    ]
    if bos_token is not None:
        tokens[rows.starts] = bos_token
    if prefix:
        tokens[blocks.starts[item_block[first]][:, None] + np.arange(len(prefix))] = prefix
    before = np.zeros(len(counts), dtype=np.int64) if cached is None else np.asarray(cached, dtype=np.int64)
    positions = np.arange(blocks.total) - np.repeat(rows.starts - before, rows.lengths)
    # Where the keys lie: each row's new ones behind its cached ones.
    row_keys = Spans.of_lengths(before + rows.lengths)
    block_keys = Spans(blocks.starts + np.cumsum(before)[block_row], lengths, row_keys.total)

    seen = np.full((len(lengths), 2), NO_COLUMN, dtype=np.int64)  # item and user of each block
    seen[item_block, 0] = np.fromiter((c for row in column_items for c in row), dtype=np.int64, count=len(items))
    seen[item_block, 1] = np.repeat(np.asarray(column_users, dtype=np.int64), counts)
    distinct = [np.unique(column[column != NO_COLUMN]) for column in seen.T]
    columns = np.stack([np.searchsorted(found, column) for found, column in zip(distinct, seen.T, strict=True)], axis=1)
    columns[:, 1] += len(distinct[0])
    columns[seen == NO_COLUMN] = -1

    read_counts = counts if read_newest is None else np.minimum(counts, read_newest)
    read = Spans(np.cumsum(counts) - read_counts, read_counts, len(items)).indices()
    read_blocks = item_block[read]
    starts = positions[blocks.starts]
    lone = Spans.of_one(np.arange(len(read)), len(read))
    vocabulary, words = np.unique(tokens, return_inverse=True)
    return Rows(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        special=torch.from_numpy(special),
        kind=kind,
        vocabulary=torch.from_numpy(vocabulary),
        words=torch.from_numpy(words),
        causal=segments(rows, row_keys),
        context=segments(blocks, block_keys, columns, starts),
        column_items=torch.from_numpy(distinct[0]),
        column_users=torch.from_numpy(distinct[1]),
        readouts=torch.from_numpy(special[read]),
        causal_readouts=segments(Spans.of_lengths(read_counts), row_keys),
        context_readouts=segments(lone, block_keys[read_blocks], columns[read_blocks], starts[read_blocks]),
        continues=cached is not None,
    )
