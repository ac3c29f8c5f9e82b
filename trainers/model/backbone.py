"""The seam to a frozen decoder LLM: the pieces of a pre-norm decoder that MixRec recombines.

Three families fit: OPT, Llama (with grouped-query attention and rotary positions) and GPT-2. Nothing outside this
file knows which one it is. All tensors are flat: [M, ...] with M tokens, no padding.

Legend: M tokens, d hidden width, H query heads, G key-value heads (G divides H), e head size.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trainers.model.kernels import frozen_rms_norm, swiglu
from trainers.model.sharding import ShardedLayers


class DecoderLayer(ABC):
    """One frozen pre-norm layer, `x + attention(norm(x))` then `x + feed_forward(norm(x))`, taken apart."""

    scale: float
    """Factor of the attention logits: the backbone's own, the inverse root of the head size."""

    module: nn.Module
    """The whole layer, as transformers has it"""

    @abstractmethod
    def attention_norm(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def queries(self, normed: Tensor) -> Tensor:
        """[M, d] -> [M, H, e], positions not yet applied."""

    @abstractmethod
    def keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """[M, d] -> two of [M, G, e], positions not yet applied."""

    @property
    @abstractmethod
    def output_map(self) -> tuple[Tensor, Tensor | None]:
        """The linear map that ends the attention: weight [d, H * e] and bias [d]."""

    def attention_output(self, mixed: Tensor) -> Tensor:
        """[M, H * e] -> [M, d]"""
        return linear(mixed, *self.output_map)

    @abstractmethod
    def feed_forward_norm(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def feed_forward_inner(self, normed: Tensor) -> Tensor:
        """[M, d] -> [M, f], what the feed-forward's last map reads."""

    @property
    @abstractmethod
    def feed_forward_map(self) -> tuple[Tensor, Tensor | None]:
        """The linear map that ends the feed-forward: weight [d, f] and bias [d]."""

    def feed_forward(self, normed: Tensor) -> Tensor:
        """[M, d] -> [M, d]"""
        return linear(self.feed_forward_inner(normed), *self.feed_forward_map)


class Backbone:
    """A frozen decoder body. Not an `nn.Module`: its weights never enter a checkpoint or an optimiser."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[DecoderLayer],
        *,
        num_heads: int,
        num_key_value_heads: int,
        token_table: nn.Embedding,
        position_table: Callable[[Tensor], Tensor] | None,
        rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
        final_norm: Callable[[Tensor], Tensor],
        max_positions: int,
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self.layers = tuple(layers)
        self.num_heads = num_heads
        self.num_key_value_heads = num_key_value_heads
        self.token_table = token_table
        self.final_norm = final_norm
        self.max_positions = max_positions
        self._position_table = position_table
        self._rotary = rotary
        self._shards: ShardedLayers | None = None

    @property
    def width(self) -> int:
        return self.token_table.embedding_dim

    @property
    def dtype(self) -> torch.dtype:
        return self.token_table.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.token_table.weight.device

    def to(self, device: torch.device) -> Backbone:
        self._model.to(device)
        return self

    def shard(self, device: torch.device) -> None:
        """Divide the layers among the workers of the process group; embeddings and the last norm stay whole on each.

        From then on layers are read within `run_layer` alone, and every worker makes each pass.
        """
        self._shards = ShardedLayers([layer.module for layer in self.layers], device)
        self.to(device)

    @property
    def is_sharded(self) -> bool:
        return self._shards is not None

    def run_layer(self, index: int, step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`step(x)`, which reads layer `index`."""
        return step(x) if self._shards is None else self._shards.run(index, step, x)

    def passes_that_differ(self) -> contextlib.AbstractContextManager[None]:
        """See `ShardedLayers`; of no effect where nothing is sharded."""
        return contextlib.nullcontext() if self._shards is None else self._shards.passes_that_differ()

    def parameters(self) -> list[nn.Parameter]:
        return list(self._model.parameters())

    def position_embeddings(self, positions: Tensor) -> Tensor | None:
        """Learned absolute positions [M, d], or None where the family rotates instead."""
        return None if self._position_table is None else self._position_table(positions)

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine [M, 1, e] for `rotate`, or None for a family with absolute positions."""
        if self._rotary is None:
            return None
        cosine, sine = self._rotary(self.token_table.weight, positions[None])
        return cosine[0].unsqueeze(1), sine[0].unsqueeze(1)


def _split_heads(flat: Tensor, heads: int) -> Tensor:
    return flat.view(flat.shape[0], heads, flat.shape[-1] // heads)  # `len` would fix the number in an export


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    return frozen_rms_norm(x, norm.weight, norm.variance_epsilon)


class _RmsNorm(nn.Module):
    """Llama's last norm by our kernel, as a module: so its weight is found by whoever exports it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return _rms_norm(self.norm, x)


class _LlamaLayer(DecoderLayer):
    def __init__(self, layer: Any, heads: int, key_value_heads: int) -> None:
        self.scale = float(layer.self_attn.scaling)
        self.module = self._layer = layer
        self._heads, self._key_value_heads = heads, key_value_heads

    def attention_norm(self, x: Tensor) -> Tensor:
        return _rms_norm(self._layer.input_layernorm, x)

    def queries(self, normed: Tensor) -> Tensor:
        return _split_heads(self._layer.self_attn.q_proj(normed), self._heads)

    def keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        attention = self._layer.self_attn
        heads = self._key_value_heads
        return _split_heads(attention.k_proj(normed), heads), _split_heads(attention.v_proj(normed), heads)

    @property
    def output_map(self) -> tuple[Tensor, Tensor | None]:
        projection = self._layer.self_attn.o_proj
        return projection.weight, projection.bias

    def feed_forward_norm(self, x: Tensor) -> Tensor:
        return _rms_norm(self._layer.post_attention_layernorm, x)

    def feed_forward_inner(self, normed: Tensor) -> Tensor:
        return swiglu(self._layer.mlp.gate_proj(normed), self._layer.mlp.up_proj(normed))

    @property
    def feed_forward_map(self) -> tuple[Tensor, Tensor | None]:
        projection = self._layer.mlp.down_proj
        return projection.weight, projection.bias


class _OptLayer(DecoderLayer):
    def __init__(self, layer: Any, heads: int) -> None:
        self.scale = float(layer.self_attn.scaling)
        self.module = self._layer = layer
        self._heads = heads

    def attention_norm(self, x: Tensor) -> Tensor:
        return self._layer.self_attn_layer_norm(x)  # type: ignore[no-any-return]

    def queries(self, normed: Tensor) -> Tensor:
        return _split_heads(self._layer.self_attn.q_proj(normed), self._heads)

    def keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        attention = self._layer.self_attn
        return _split_heads(attention.k_proj(normed), self._heads), _split_heads(attention.v_proj(normed), self._heads)

    @property
    def output_map(self) -> tuple[Tensor, Tensor | None]:
        projection = self._layer.self_attn.out_proj
        return projection.weight, projection.bias

    def feed_forward_norm(self, x: Tensor) -> Tensor:
        return self._layer.final_layer_norm(x)  # type: ignore[no-any-return]

    def feed_forward_inner(self, normed: Tensor) -> Tensor:
        return self._layer.activation_fn(self._layer.fc1(normed))  # type: ignore[no-any-return]

    @property
    def feed_forward_map(self) -> tuple[Tensor, Tensor | None]:
        return self._layer.fc2.weight, self._layer.fc2.bias


class _Gpt2Layer(DecoderLayer):
    def __init__(self, layer: Any, heads: int, head_size: int) -> None:
        self.scale = head_size**-0.5
        self.module = self._layer = layer
        self._heads = heads

    def attention_norm(self, x: Tensor) -> Tensor:
        return self._layer.ln_1(x)  # type: ignore[no-any-return]

    def _project(self, normed: Tensor, first: int, last: int) -> Tensor:
        # c_attn holds Q, K and V side by side as one [d, 3d] matrix; take only the columns that are asked for.
        fused, width = self._layer.attn.c_attn, normed.shape[-1]
        columns = slice(first * width, last * width)
        return torch.addmm(fused.bias[columns], normed, fused.weight[:, columns])

    def queries(self, normed: Tensor) -> Tensor:
        return _split_heads(self._project(normed, 0, 1), self._heads)

    def keys_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self._project(normed, 1, 3).chunk(2, dim=-1)
        return _split_heads(keys, self._heads), _split_heads(values, self._heads)

    @property
    def output_map(self) -> tuple[Tensor, Tensor | None]:
        projection = self._layer.attn.c_proj  # kept as [H * e, d]
        return projection.weight.T, projection.bias

    def feed_forward_norm(self, x: Tensor) -> Tensor:
        return self._layer.ln_2(x)  # type: ignore[no-any-return]

    def feed_forward_inner(self, normed: Tensor) -> Tensor:
        return self._layer.mlp.act(self._layer.mlp.c_fc(normed))  # type: ignore[no-any-return]

    @property
    def feed_forward_map(self) -> tuple[Tensor, Tensor | None]:
        projection = self._layer.mlp.c_proj  # kept as [f, d]
        return projection.weight.T, projection.bias


def as_backbone(model: Any) -> Backbone:
    """Wrap a transformers decoder body (`LlamaModel`, `OPTModel` or `GPT2Model`) and freeze it.

    Raises:
        ValueError: another family, or a variant that is not pre-norm or has another activation.
    """
    config = model.config
    if config.model_type == "llama" and config.hidden_act == "silu":
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        return Backbone(
            model,
            [_LlamaLayer(layer, heads, groups) for layer in model.layers],
            num_heads=heads,
            num_key_value_heads=groups,
            token_table=model.embed_tokens,
            position_table=None,
            rotary=model.rotary_emb,
            final_norm=_RmsNorm(model.norm),
            max_positions=config.max_position_embeddings,
        )
    if config.model_type == "opt" and config.do_layer_norm_before and config.word_embed_proj_dim == config.hidden_size:
        decoder, heads = model.decoder, config.num_attention_heads
        positions = decoder.embed_positions
        return Backbone(
            model,
            [_OptLayer(layer, heads) for layer in decoder.layers],
            num_heads=heads,
            num_key_value_heads=heads,
            token_table=decoder.embed_tokens,
            position_table=lambda index: nn.functional.embedding(index + positions.offset, positions.weight),
            rotary=None,
            final_norm=decoder.final_layer_norm or nn.Identity(),
            max_positions=config.max_position_embeddings,
        )
    if config.model_type == "gpt2" and config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx:
        heads = config.n_head
        return Backbone(
            model,
            [_Gpt2Layer(layer, heads, config.n_embd // heads) for layer in model.h],
            num_heads=heads,
            num_key_value_heads=heads,
            token_table=model.wte,
            position_table=model.wpe,
            rotary=None,
            final_norm=model.ln_f,
            max_positions=config.n_positions,
        )
    raise ValueError(f"no seam for the decoder family {config.model_type!r}: pre-norm OPT, Llama and GPT-2 fit")
