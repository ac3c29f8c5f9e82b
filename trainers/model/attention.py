"""The two attentions of a DAMoE layer over the same frozen projections (paper, 2.3.1 and Appendix C).

Q, K and V are computed once and shared by both branches. The causal branch never sees a collaborative column, so it
runs as plain causal attention; the context branch sees one item at a time, so it runs as a batch of small blocks.
Both are exact: the masks of the paper, with additive minus infinity and the backbone's own scale (section 7, slips).

Legend: M tokens, Q readouts, N segments of a bucket, K distinct column vectors, H query heads, G key-value heads,
e head size, d hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trainers.data.rows import Rows
from trainers.data.segments import Bucket, Segments
from trainers.model import varlen
from trainers.model.backbone import Backbone, DecoderLayer
from trainers.model.kernels import put, rotate, short_attention, take

Rotation = tuple[Tensor, Tensor] | None

SHORT = 128
"""Keys up to which plain batched products beat torch's blockwise attention on a CPU."""


@dataclass(frozen=True)
class Geometry:
    """What attention needs besides hidden states; the same for every layer of one forward pass."""

    rows: Rows
    columns: Tensor | None
    """[K, d] collaborative vectors in the backbone's width, not yet normed: the items', then the users'"""
    token_rotation: Rotation
    column_rotation: Rotation
    readout_column_rotation: Rotation

    @classmethod
    def of(cls, backbone: Backbone, rows: Rows, columns: Tensor | None) -> Geometry:
        return cls(
            rows,
            columns,
            backbone.rotation(rows.positions),
            backbone.rotation(rows.context.column_positions),
            backbone.rotation(rows.context_readouts.column_positions),
        )


@dataclass(frozen=True)
class Projected:
    """Queries, keys and values with positions applied."""

    queries: Tensor
    """[M, H, e], or [Q, H, e] where only readouts are computed"""
    keys: Tensor
    """[M, G, e]; where rows continue, with the cached ones before the new ones of each row"""
    values: Tensor
    """The same"""
    normed: Tensor
    """What was projected, [M, d], or the readouts of it, [Q, d], where only they are computed"""
    readouts_only: bool


def project(layer: DecoderLayer, normed: Tensor, geometry: Geometry, *, readouts_only: bool) -> Projected:
    """Project [M, d] normed states; `readouts_only` skips queries that nobody reads (the last layer)."""
    keys, values = layer.keys_values(normed)
    rotation = at_queries = geometry.token_rotation
    if readouts_only:
        read = geometry.rows.readouts
        normed = take(normed, read)
        at_queries = None if rotation is None else (rotation[0][read], rotation[1][read])
    queries = rotate(layer.queries(normed), at_queries)
    return Projected(queries, rotate(keys, rotation), values, normed, readouts_only)


def causal_branch(layer: DecoderLayer, projected: Projected, geometry: Geometry) -> Tensor:
    """Each token attends to itself and the earlier tokens of its row. [M or Q, H * e], before the output map."""
    rows = geometry.rows
    if not projected.readouts_only:
        if rows.continues:
            return _attend(layer, projected, rows.causal, positions=rows.positions)
        return _attend(layer, projected, rows.causal, is_causal=True)
    return _attend(layer, projected, rows.causal_readouts, positions=rows.positions[rows.readouts])


def context_branch(layer: DecoderLayer, projected: Projected, geometry: Geometry) -> Tensor:
    """Each token attends to all tokens of its own item and to that item's columns. Returns [M or Q, H * e]."""
    rows, only = geometry.rows, projected.readouts_only
    segments = rows.context_readouts if only else rows.context
    columns = None
    if geometry.columns is not None:
        # Columns pass the layer's own input norm, then its frozen K and V (ruling 2).
        keys, values = layer.keys_values(layer.attention_norm(geometry.columns))
        rotation = geometry.readout_column_rotation if only else geometry.column_rotation
        columns = rotate(keys[segments.columns], rotation), values[segments.columns]
    return _attend(layer, projected, segments, columns=columns)


def _attend(
    layer: DecoderLayer,
    projected: Projected,
    segments: Segments,
    *,
    is_causal: bool = False,
    columns: tuple[Tensor, Tensor] | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Attention inside each segment, bucket by bucket.

    Args:
        columns: keys and values of the columns, in the segments' order; None where nothing but tokens is seen.
        positions: [Q] of the queries, where each sees its segment's keys up to its own position.
    """
    buckets = segments.buckets
    queries = _split(take(projected.queries, segments.queries), [(b.segments, b.queries) for b in buckets])
    keys = _split(take(projected.keys, segments.keys), [(b.segments, b.keys) for b in buckets])
    values = _split(take(projected.values, segments.keys), [(b.segments, b.keys) for b in buckets])
    if columns is not None:
        shapes = [(b.segments, b.columns) for b in buckets]
        more_keys, more_values = _split(columns[0], shapes), _split(columns[1], shapes)
        keys = [torch.cat(pair, dim=1) if pair[1].shape[1] else pair[0] for pair in zip(keys, more_keys, strict=True)]
        values = [
            torch.cat(pair, dim=1) if pair[1].shape[1] else pair[0] for pair in zip(values, more_values, strict=True)
        ]
    if positions is None and varlen.is_usable(projected.queries):
        joined = varlen.attend(queries, keys, values, scale=layer.scale, is_causal=is_causal)
        return put(joined, segments.queries).flatten(1)
    masks: list[Tensor | None] = [None] * len(buckets)
    if positions is not None:
        placed = take(positions, segments.queries)
        masks = [_up_to(placed[at : at + b.segments * b.queries], b) for at, b in _places(buckets)]
    mixed = [
        _attention(q, k, v, scale=layer.scale, is_causal=is_causal, mask=mask).flatten(0, 1)
        for q, k, v, mask in zip(queries, keys, values, masks, strict=True)
    ]
    joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return put(joined, segments.queries).flatten(1)


def _split(flat: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """[sum of N * n, heads, e] -> [N, n, heads, e] of each bucket."""
    parts = torch.split(flat, [segments * length for segments, length in shapes])
    return [part.view(*shape, *flat.shape[1:]) for part, shape in zip(parts, shapes, strict=True)]


def _places(buckets: tuple[Bucket, ...]) -> list[tuple[int, Bucket]]:
    """Each bucket with the place of its first query."""
    at, found = 0, []
    for bucket in buckets:
        found.append((at, bucket))
        at += bucket.segments * bucket.queries
    return found


def _up_to(positions: Tensor, bucket: Bucket) -> Tensor | None:
    """[N, 1, q, k] which keys lie at or before each query; None for lone queries, which stand at their row's end."""
    if bucket.queries == 1:
        return None
    earlier = torch.arange(bucket.keys, device=positions.device) <= positions.unsqueeze(-1)
    return earlier.view(bucket.segments, 1, bucket.queries, bucket.keys)


def _attention(
    queries: Tensor, keys: Tensor, values: Tensor, *, scale: float, is_causal: bool, mask: Tensor | None
) -> Tensor:
    """[N, q, H, e] queries over [N, k, G, e] keys -> [N, q, H, e]."""
    if mask is None and keys.shape[1] <= SHORT and queries.device.type == "cpu":
        return short_attention(queries, keys, values, scale=scale, is_causal=is_causal)
    mixed = scaled_dot_product_attention(
        queries.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=True,
    )
    return mixed.transpose(1, 2)
