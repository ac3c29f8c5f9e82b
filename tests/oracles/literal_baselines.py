"""GRU4Rec, SASRec, BERT4Rec, FDSA and RecFormer as their equations read: one row, one place, one head at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu

from trainers.baselines.attribute_tokens import TokenType
from trainers.baselines.fdsa import FDSA
from trainers.baselines.gru4rec import GRU4Rec
from trainers.baselines.recformer import RecFormer
from trainers.baselines.transformer import PositionedTransformer


def norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    deviation = x - x.mean()
    return deviation / torch.sqrt(deviation.square().mean() + epsilon) * weight + bias


def transformer(module: PositionedTransformer, vectors: Tensor) -> Tensor:
    """[N, d] vectors of one row without padding -> [N, d], dropout left out."""
    length, width = vectors.shape
    rows = [
        norm(vectors[i] + module.positions.weight[i], module.norm.weight, module.norm.bias, module.norm.eps)
        for i in range(length)
    ]
    for block in module.blocks.layers:
        heads = block.self_attn.num_heads
        size = width // heads
        maps, biases = block.self_attn.in_proj_weight.chunk(3), block.self_attn.in_proj_bias.chunk(3)
        queries, keys, values = ([m @ row + b for row in rows] for m, b in zip(maps, biases, strict=True))
        attended = []
        for i in range(length):
            seen = range(i + 1) if module.is_causal else range(length)
            parts = []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                weights = torch.stack([queries[i][own] @ keys[j][own] / math.sqrt(size) for j in seen]).softmax(0)
                parts.append(sum(weight * values[j][own] for weight, j in zip(weights, seen, strict=True)))
            joined = torch.cat(parts)  # type: ignore[arg-type]
            attended.append(block.self_attn.out_proj.weight @ joined + block.self_attn.out_proj.bias)
        first, second = block.norm1, block.norm2
        rows = [norm(x + a, first.weight, first.bias, first.eps) for x, a in zip(rows, attended, strict=True)]
        inner = [gelu(block.linear1.weight @ x + block.linear1.bias) for x in rows]
        outer = [block.linear2.weight @ x + block.linear2.bias for x in inner]
        rows = [norm(x + o, second.weight, second.bias, second.eps) for x, o in zip(rows, outer, strict=True)]
    return torch.stack(rows)


def gru(model: GRU4Rec, vectors: Tensor) -> Tensor:
    """[N, d] -> [N, d]: reset gate, update gate and candidate of Cho et al. (2014), layer by layer."""
    rows = list(vectors)
    for layer in range(model.gru.num_layers):
        of_input = getattr(model.gru, f"weight_ih_l{layer}").chunk(3)
        of_state = getattr(model.gru, f"weight_hh_l{layer}").chunk(3)
        state = torch.zeros(model.gru.hidden_size, dtype=vectors.dtype)
        found = []
        for x in rows:
            reset = torch.sigmoid(of_input[0] @ x + of_state[0] @ state)
            update = torch.sigmoid(of_input[1] @ x + of_state[1] @ state)
            candidate = torch.tanh(of_input[2] @ x + reset * (of_state[2] @ state))
            state = (1 - update) * candidate + update * state
            found.append(state)
        rows = found
    return torch.stack([model.output.weight @ row + model.output.bias for row in rows])


def features(model: FDSA, items: Tensor) -> Tensor:
    """[N] items -> [N, d]: each item's features, weighted by attention."""
    found = []
    for item in items.tolist():
        own = [int(one) for one in model.features[item] if one != model.num_features]
        vectors = [model.feature_embedding.weight[one] for one in own]
        if not vectors:
            found.append(torch.zeros_like(model.feature_embedding.weight[0]))
            continue
        weights = torch.stack([(model.attention.weight @ x + model.attention.bias)[0] for x in vectors]).softmax(0)
        found.append(sum(weight * x for weight, x in zip(weights, vectors, strict=True)))  # type: ignore[arg-type]
    return torch.stack(found)


def recformer_state(model: RecFormer, history: list[int]) -> Tensor:
    """[d] what BERT makes of [CLS] before the texts of `history`, whose oldest item comes first, without dropout."""
    bert, read = model.body, [(model.num_items + 1, 0)]
    read += [(item, place) for place, item in enumerate(reversed(history), start=1)]
    rows = []
    for item, place in read:
        for token, kind in zip(model.tokens[item].tolist(), model.types[item].tolist(), strict=True):
            if kind != TokenType.PAD:
                table = bert.embeddings
                total = table.word_embeddings.weight[token] + table.position_embeddings.weight[len(rows)]
                total = total + table.token_type_embeddings.weight[kind] + model.item_positions.weight[place]
                rows.append(norm(total, table.LayerNorm.weight, table.LayerNorm.bias, table.LayerNorm.eps))
    heads = bert.config.num_attention_heads
    size = len(rows[0]) // heads
    for layer in bert.encoder.layer:
        attention, output = layer.attention.self, layer.attention.output
        queries, keys, values = (
            [part.weight @ row + part.bias for row in rows]
            for part in (attention.query, attention.key, attention.value)
        )
        attended = []
        for query, row in zip(queries, rows, strict=True):
            parts = []
            for head in range(heads):
                own = slice(head * size, (head + 1) * size)
                weights = torch.stack([query[own] @ key[own] / math.sqrt(size) for key in keys]).softmax(0)
                parts.append(sum(weight * value[own] for weight, value in zip(weights, values, strict=True)))
            joined = output.dense.weight @ torch.cat(parts) + output.dense.bias  # type: ignore[arg-type]
            attended.append(norm(row + joined, output.LayerNorm.weight, output.LayerNorm.bias, output.LayerNorm.eps))
        inner, outer = layer.intermediate.dense, layer.output
        rows = []
        for row in attended:
            fed = outer.dense.weight @ gelu(inner.weight @ row + inner.bias) + outer.dense.bias
            rows.append(norm(row + fed, outer.LayerNorm.weight, outer.LayerNorm.bias, outer.LayerNorm.eps))
    return rows[0]
