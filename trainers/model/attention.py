"""The two attentions of a DAMoE layer over the same frozen projections (paper, 2.3.1 and Appendix C).

Q, K and V are computed once and shared by both branches. The causal branch never sees a collaborative column, so it
runs as plain causal attention; the context branch sees one item at a time, so it runs as a batch of small blocks.
Both are exact: the masks of the paper, with additive minus infinity and the backbone's own scale (section 7, slips).

Legend: M tokens, Q readouts, B rows, N blocks, T longest block, C columns a block, K distinct column vectors,
H query heads, G key-value heads, e head size, d hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trainers.data.rows import Rows
from trainers.model.backbone import Backbone, DecoderLayer, rotate

Rotation = tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Columns:
    """Collaborative vectors that enter every layer as extra keys and values of the context branch (2.3.2)."""

    vectors: Tensor
    """[K, d] projected to the backbone's width, not yet normed"""
    index: Tensor
    """[N, C] vector that each block sees; any where it sees none"""
    visible: Tensor
    """[N, C] bool"""


@dataclass(frozen=True)
class Geometry:
    """What attention needs besides hidden states; the same for every layer of one forward pass."""

    rows: Rows
    columns: Columns | None
    token_rotation: Rotation
    column_rotation: Rotation
    """Of each block's first token: a column stands there (ruling 17)."""

    @classmethod
    def of(cls, backbone: Backbone, rows: Rows, columns: Columns | None) -> Geometry:
        return cls(rows, columns, backbone.rotation(rows.positions), backbone.rotation(rows.starts))


@dataclass(frozen=True)
class Projected:
    """Queries, keys and values with positions applied."""

    queries: Tensor
    """[M, H, e], or [Q, H, e] where only readouts are computed"""
    keys: Tensor
    """[M, G, e]"""
    values: Tensor
    """[M, G, e]"""
    readouts_only: bool


def project(layer: DecoderLayer, normed: Tensor, geometry: Geometry, *, readouts_only: bool) -> Projected:
    """Project [M, d] normed states; `readouts_only` skips queries that nobody reads (the last layer)."""
    keys, values = layer.keys_values(normed)
    rotation = geometry.token_rotation
    if not readouts_only:
        queries = rotate(layer.queries(normed), rotation)
    else:
        read = geometry.rows.readouts
        at_readouts = None if rotation is None else (rotation[0][read], rotation[1][read])
        queries = rotate(layer.queries(normed[read]), at_readouts)
    return Projected(queries, rotate(keys, rotation), values, readouts_only)


def causal_branch(layer: DecoderLayer, projected: Projected, geometry: Geometry) -> Tensor:
    """Each token attends to itself and the earlier tokens of its row. Returns [M or Q, d]."""
    rows = geometry.rows
    keys, values = rows.rows.gather(projected.keys), rows.rows.gather(projected.values)
    if not projected.readouts_only:
        mixed = _attend(layer, rows.rows.gather(projected.queries), keys, values, mask=None)
        return layer.attention_output(rows.rows.scatter(mixed))
    groups = rows.readout_rows
    query_positions = rows.positions[rows.readouts[groups.slots]]
    # A padded query repeats its row's first readout and a padded key lies behind every query: both are harmless.
    earlier = torch.arange(keys.shape[2], device=keys.device) <= query_positions.unsqueeze(-1)
    mixed = _attend(layer, groups.gather(projected.queries), keys, values, mask=earlier.unsqueeze(1))
    return layer.attention_output(groups.scatter(mixed))


def context_branch(layer: DecoderLayer, projected: Projected, geometry: Geometry) -> Tensor:
    """Each token attends to all tokens of its own item and to that item's columns. Returns [M or Q, d]."""
    rows, blocks = geometry.rows, geometry.rows.blocks
    chosen = rows.readout_blocks if projected.readouts_only else slice(None)
    slots = blocks.slots[chosen]
    keys, values = projected.keys[slots], projected.values[slots]  # [N, T, G, e]
    real = torch.arange(slots.shape[1], device=slots.device) < blocks.lengths[chosen].unsqueeze(-1)
    if geometry.columns is not None:
        column_keys, column_values = _column_keys_values(layer, geometry.columns, geometry.column_rotation)
        keys = torch.cat([keys, column_keys[chosen]], dim=1)
        values = torch.cat([values, column_values[chosen]], dim=1)
        real = torch.cat([real, geometry.columns.visible[chosen]], dim=1)
    keys, values, mask = keys.transpose(1, 2), values.transpose(1, 2), real[:, None, None, :]
    if projected.readouts_only:
        mixed = _attend(layer, projected.queries.unsqueeze(2), keys, values, mask=mask)
        return layer.attention_output(mixed.flatten(1))
    mixed = _attend(layer, blocks.gather(projected.queries), keys, values, mask=mask)
    return layer.attention_output(blocks.scatter(mixed))


def _column_keys_values(layer: DecoderLayer, columns: Columns, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Columns pass the layer's own input norm, then its frozen K and V (ruling 2). Two of [N, C, G, e]."""
    keys, values = layer.keys_values(layer.attention_norm(columns.vectors))
    keys, values = keys[columns.index], values[columns.index]
    if rotation is not None:
        keys = rotate(keys, (rotation[0].unsqueeze(1), rotation[1].unsqueeze(1)))
    return keys, values


def _attend(layer: DecoderLayer, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """[N, H, q, e] queries over [N, G, k, e] keys; causal where there is no mask."""
    repeats = queries.shape[1] // keys.shape[1]
    if repeats > 1:
        keys, values = keys.repeat_interleave(repeats, dim=1), values.repeat_interleave(repeats, dim=1)
    return scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=layer.scale
    )
