"""The control of the paper's Fig. 8 that keeps what it confounds: the second branch under the causal mask, with the
columns of each token's own item still visible.

The paper's control loses the collaborative columns together with the context mask, so it cannot tell which of the two
helps. This is an experiment and no method: its logits are laid out whole, which is slow for long rows.

Legend: M tokens, Q queries (M, or the readouts), N segments of a bucket, C most columns of a token, H query heads, G
key-value heads, e head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.data.segments import Segments
from trainers.model.attention import Geometry, Projected, causal_branch
from trainers.model.backbone import DecoderLayer
from trainers.model.kernels import rotate


def causal_with_columns(layer: DecoderLayer, projected: Projected, geometry: Geometry) -> Tensor:
    """Each token attends to itself, the earlier tokens of its row and its own item's columns. [Q, H * e]."""
    rows, only = geometry.rows, projected.readouts_only
    context, causal = (rows.context_readouts, rows.causal_readouts) if only else (rows.context, rows.causal)
    queries = projected.queries
    if geometry.columns is None or not len(context.columns):
        return causal_branch(layer, projected, geometry)
    places = _own_columns(context, len(queries))
    keys, values = layer.keys_values(layer.attention_norm(geometry.columns))
    keys = rotate(keys[context.columns], geometry.readout_column_rotation if only else geometry.column_rotation)
    groups = queries.shape[1] // keys.shape[1]

    def of_each_query(column: Tensor) -> Tensor:
        """[columns, G, e] -> [Q, H, C, e]"""
        return column[places.clamp(min=0)].repeat_interleave(groups, dim=2).transpose(1, 2)

    own_values = of_each_query(values[context.columns])
    own_logits = torch.einsum("qhe,qhce->qhc", queries, of_each_query(keys)) * layer.scale
    own_logits = own_logits.masked_fill((places < 0).unsqueeze(1), -torch.inf)
    positions = rows.positions[rows.readouts] if only else rows.positions

    mixed = torch.empty_like(queries)
    at_query = at_key = 0
    for bucket in causal.buckets:
        asked = _chosen(causal.queries, at_query, bucket.segments * bucket.queries, queries.device)
        seen = _chosen(causal.keys, at_key, bucket.segments * bucket.keys, queries.device)
        at_query, at_key = at_query + len(asked), at_key + len(seen)
        shape = (bucket.segments, bucket.keys, -1, queries.shape[2])
        row_keys, row_values = (
            part[seen].view(shape).repeat_interleave(groups, dim=2) for part in (projected.keys, projected.values)
        )
        shape = (bucket.segments, bucket.queries, -1, queries.shape[2])
        logits = torch.einsum("nqhe,nkhe->nqhk", queries[asked].view(shape), row_keys) * layer.scale
        place = positions[asked].view(bucket.segments, bucket.queries, 1, 1)
        later = torch.arange(bucket.keys, device=queries.device) > place
        own = own_logits[asked].view(bucket.segments, bucket.queries, queries.shape[1], -1)
        weights = torch.cat([logits.masked_fill(later, -torch.inf), own], dim=-1).softmax(dim=-1)
        found = torch.einsum("nqhk,nkhe->nqhe", weights[..., : bucket.keys], row_values).flatten(0, 1)
        of_columns = weights[..., bucket.keys :].flatten(0, 1).unsqueeze(-1) * own_values[asked]
        mixed = mixed.index_copy(0, asked, (found + of_columns.sum(dim=2)).to(mixed.dtype))
    return mixed.flatten(1)


def _own_columns(context: Segments, queries: int) -> Tensor:
    """[Q, C] which of `context.columns` each query's item sees; -1: none."""
    device = context.columns.device
    places = torch.full((queries, max(bucket.columns for bucket in context.buckets)), -1, device=device)
    at_query = at_column = 0
    for bucket in context.buckets:
        asked = _chosen(context.queries, at_query, bucket.segments * bucket.queries, device)
        count = bucket.segments * bucket.columns
        own = torch.arange(at_column, at_column + count, device=device).view(bucket.segments, 1, bucket.columns)
        places[asked, : bucket.columns] = own.expand(-1, bucket.queries, -1).flatten(0, 1)
        at_query, at_column = at_query + len(asked), at_column + count
    return places


def _chosen(order: Tensor | None, first: int, count: int, device: torch.device) -> Tensor:
    """`count` entries of `order` from `first` on; None is the order itself."""
    return torch.arange(first, first + count, device=device) if order is None else order[first : first + count]
