"""A plain reading of the frozen decoder: the same six steps for OPT, Llama and GPT-2 bodies, and attention by hand.

Shapes: T tokens of one row, N keys (T tokens and the columns), d hidden width. There is no batch dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Model, LlamaModel, OPTModel

Map = Callable[[Tensor], Tensor]
Rotation = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class FrozenLayer:
    """One pre-norm decoder layer, as the functions that it is made of."""

    norm_1: Map
    query: Map
    """[T, d] -> [T, heads * head_dim]"""
    key: Map
    """[N, d] -> [N, kv_heads * head_dim]"""
    value: Map
    output: Map
    """The attention's last map"""
    norm_2: Map
    widen: Map
    """The feed-forward up to its last map, activation included: [T, d] -> [T, f]"""
    narrow: Map
    """The feed-forward's last map"""
    heads: int
    kv_heads: int
    scale: float
    """The backbone's own: 1 / sqrt(head_dim) (section 7, slips)."""

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.widen(x))


@dataclass(frozen=True)
class FrozenDecoder:
    layers: tuple[FrozenLayer, ...]
    embed: Map
    """[T] token indices -> [T, d]"""
    learned_positions: Callable[[Sequence[int]], Tensor] | None
    """Positions -> [T, d], added to the embeddings; absent with rotary positions."""
    rotate: Rotation
    """[N, head_dim] queries or keys at N positions; the identity with learned positions."""
    final_norm: Map


def read_backbone(backbone: Any) -> FrozenDecoder:
    """The steps of a transformers decoder body.

    Raises:
        ValueError: `backbone` is in training mode, or is no OPTModel, LlamaModel or GPT2Model.
    """
    if backbone.training:
        raise ValueError("the literal model reads a backbone in evaluation mode: call backbone.eval()")
    if isinstance(backbone, OPTModel):
        return _read_opt(backbone)
    if isinstance(backbone, LlamaModel):
        return _read_llama(backbone)
    if isinstance(backbone, GPT2Model):
        return _read_gpt2(backbone)
    raise ValueError(f"no literal reading of {type(backbone).__name__}")


def _read_opt(backbone: Any) -> FrozenDecoder:
    decoder, config = backbone.decoder, backbone.config

    def widen(layer: Any) -> Map:
        return lambda x: layer.activation_fn(layer.fc1(x))

    layers = tuple(
        FrozenLayer(
            norm_1=layer.self_attn_layer_norm,
            query=layer.self_attn.q_proj,
            key=layer.self_attn.k_proj,
            value=layer.self_attn.v_proj,
            output=layer.self_attn.out_proj,
            norm_2=layer.final_layer_norm,
            widen=widen(layer),
            narrow=layer.fc2,
            heads=config.num_attention_heads,
            kv_heads=config.num_attention_heads,
            scale=layer.self_attn.scaling,
        )
        for layer in decoder.layers
    )
    table = decoder.embed_positions
    return FrozenDecoder(
        layers,
        decoder.embed_tokens,
        lambda positions: table.weight[[position + 2 for position in positions]],
        _no_rotation,
        decoder.final_layer_norm,
    )


def _read_gpt2(backbone: Any) -> FrozenDecoder:
    width, heads = backbone.config.n_embd, backbone.config.n_head

    def third(layer: Any, number: int) -> Map:
        part = slice(number * width, (number + 1) * width)
        return lambda x: x @ layer.attn.c_attn.weight[:, part] + layer.attn.c_attn.bias[part]

    def widen(layer: Any) -> Map:
        return lambda x: layer.mlp.act(layer.mlp.c_fc(x))

    layers = tuple(
        FrozenLayer(
            norm_1=layer.ln_1,
            query=third(layer, 0),
            key=third(layer, 1),
            value=third(layer, 2),
            output=layer.attn.c_proj,
            norm_2=layer.ln_2,
            widen=widen(layer),
            narrow=layer.mlp.c_proj,
            heads=heads,
            kv_heads=heads,
            scale=layer.attn.scaling,
        )
        for layer in backbone.h
    )
    return FrozenDecoder(
        layers, backbone.wte, lambda positions: backbone.wpe.weight[list(positions)], _no_rotation, backbone.ln_f
    )


def _read_llama(backbone: Any) -> FrozenDecoder:
    config = backbone.config

    def widen(layer: Any) -> Map:
        return lambda x: layer.mlp.act_fn(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x)

    layers = tuple(
        FrozenLayer(
            norm_1=layer.input_layernorm,
            query=layer.self_attn.q_proj,
            key=layer.self_attn.k_proj,
            value=layer.self_attn.v_proj,
            output=layer.self_attn.o_proj,
            norm_2=layer.post_attention_layernorm,
            widen=widen(layer),
            narrow=layer.mlp.down_proj,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            scale=layer.self_attn.scaling,
        )
        for layer in backbone.layers
    )

    def rotate(x: Tensor, positions: Sequence[int]) -> Tensor:
        cosine, sine = backbone.rotary_emb(x[None], torch.tensor([list(positions)]))
        left, right = x.chunk(2, dim=-1)
        rotated: Tensor = x * cosine[0] + torch.cat([-right, left], dim=-1) * sine[0]
        return rotated

    return FrozenDecoder(layers, backbone.embed_tokens, None, rotate, backbone.norm)


def _no_rotation(x: Tensor, _positions: Sequence[int]) -> Tensor:
    return x


def self_attention(
    layer: FrozenLayer,
    rotate: Rotation,
    tokens: Tensor,
    token_positions: Sequence[int],
    columns: Tensor,
    column_positions: Sequence[int],
    mask: Tensor,
) -> Tensor:
    """Self-Attention(h, MASK) of Appendix C, with the mask added to the logits (section 7, slips).

    Args:
        tokens: [T, d] normed hidden states; the queries, and the first T keys and values.
        columns: [C, d] normed collaborative vectors; the last C keys and values.
        mask: [T, T + C], 0 where the token of the row may attend and minus infinity elsewhere.

    Returns:
        [T, d]
    """
    sources = torch.cat([tokens, columns])
    key_positions = [*token_positions, *column_positions]
    queries = layer.query(tokens).chunk(layer.heads, dim=-1)
    keys = layer.key(sources).chunk(layer.kv_heads, dim=-1)
    values = layer.value(sources).chunk(layer.kv_heads, dim=-1)
    group = layer.heads // layer.kv_heads
    mixed = []
    for head, query in enumerate(queries):
        key, value = keys[head // group], values[head // group]
        logits = rotate(query, token_positions) @ rotate(key, key_positions).T * layer.scale
        mixed.append(torch.softmax(logits + mask, dim=-1) @ value)
    return layer.output(torch.cat(mixed, dim=-1))
