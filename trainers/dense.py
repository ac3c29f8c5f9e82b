"""MixRec written plainly for one history: fixed slots, dense masks, no bucket and no fold, so that torch can export it.

The model itself works on flat tokens in segments whose sizes are the data's (`trainers.data.rows`); here every item has
the same number of slots, and what an item does not fill is masked out. The weights are the model's own.

Legend: n items of the history, T tokens of the longest item, S slots, P positions, D distinct words, I items of the
catalogue, c width of M_cf's vectors, d hidden width, H query heads, G key-value heads, e head size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from search_spaces.architecture import Placement
from search_spaces.damoe import DamoeSpace
from trainers.data.batches import Layout
from trainers.data.rows import SEQ
from trainers.evaluate import context_of
from trainers.model.adapter import Adapter, Map, SiteAdapter, adapt, finish
from trainers.model.backbone import DecoderLayer
from trainers.model.damoe import BaseLayer, DamoeLayer
from trainers.model.kernels import rotate
from trainers.model.mixrec import MixRec

Rotation = tuple[Tensor, Tensor] | None


class Slots(NamedTuple):
    """What attention needs besides hidden states; the same for every layer."""

    causal: Tensor
    """[S, S] whether the query (row) sees the key: itself and what is before it (paper, 2.2.5)"""
    second: Tensor
    """[S, S] or, with columns, [S, S + n]: the second branch's, the context mask in the method (2.3.1)"""
    columns: Tensor | None
    """[n, d] the items' collaborative columns (2.3.2), or None"""
    rotation: Rotation
    """Cosine and sine [S, 1, e] of each slot's position"""
    column_rotation: Rotation
    """[n, 1, e] of the position at which each item begins"""


class DenseLayer(nn.Module):
    """One layer of the backbone, and what MixRec puts in its place, from the formulas (2.2.5, 2.3.3, Appendix D)."""

    def __init__(self, frozen: DecoderLayer, replacement: nn.Module | None) -> None:
        super().__init__()
        self.frozen = frozen
        self.weights = frozen.module  # is never called: a module's weights are exported, those of `frozen` are not
        self.replacement = replacement

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """[S, d] -> [S, d]"""
        layer, own = self.frozen, self.replacement
        normed = layer.attention_norm(x)
        queries = rotate(layer.queries(normed), slots.rotation)
        keys, values = layer.keys_values(normed)
        keys = rotate(keys, slots.rotation)
        causal = _attend(queries, keys, values, slots.causal, layer.scale)
        if isinstance(own, DamoeLayer):
            if slots.columns is not None:
                column_keys, column_values = layer.keys_values(layer.attention_norm(slots.columns))
                keys = torch.cat([keys, rotate(column_keys, slots.column_rotation)])
                values = torch.cat([values, column_values])
            second = _attend(queries, keys, values, slots.second, layer.scale)
            q = _site(own.causal_expert, own.design.causal_expert, causal, layer.output_map, normed)
            p = _site(own.context_expert, own.design.context_expert, second, layer.output_map, normed)
            beta = own.gate(linear(torch.cat([q, p], dim=-1), own.gate.weight))
            x = x + beta[:, :1] * q + beta[:, 1:] * p
            normed, adapter = layer.feed_forward_norm(x), own.recommendation_adapter
            inner = layer.feed_forward_inner(normed)
            return x + _site(adapter, own.design.recommendation_adapter, inner, layer.feed_forward_map, normed)
        attended = layer.attention_output(causal)
        if isinstance(own, BaseLayer):
            x = x + own.attention_adapter(attended)
            return x + own.feed_forward_adapter(layer.feed_forward(layer.feed_forward_norm(x)))  # type: ignore[no-any-return]
        x = x + attended
        return x + layer.feed_forward(layer.feed_forward_norm(x))


class DenseMixRec(nn.Module):
    """The scores of a model in evaluation mode for one history of a user whom M_cf does not know.

    Args:
        history: most items that it will be asked with; those beyond the backbone's context are left out, as always.
    """

    def __init__(self, model: MixRec, layout: Layout, history: int) -> None:
        super().__init__()
        backbone, texts = model.backbone, layout.item_tokens
        device, longest = backbone.device, int(texts.lengths.max())
        self.history, self.context = history, context_of(model, layout)
        self.second_mask = model.config.second_mask
        with torch.no_grad():
            # Most words of a language model's vocabulary are in no item: the others stay behind.
            words, places = np.unique(texts.tokens, return_inverse=True)
            tokens = np.zeros((len(texts.lengths), longest), dtype=np.int32)
            tokens[np.arange(longest) < texts.lengths[:, None]] = places
            self.words = nn.Buffer(backbone.token_table(torch.tensor(words, device=device)))  # [D, d]
            self.tokens = nn.Buffer(torch.tensor(tokens, device=device))  # [I, T] places in `words`
            self.lengths = nn.Buffer(torch.tensor(texts.lengths, device=device))  # [I]
            self.special = nn.Buffer(model.special_tokens[SEQ].clone())  # [d]
            bos = None if layout.bos_token is None else torch.tensor([layout.bos_token], device=device)
            self.bos = None if bos is None else nn.Buffer(backbone.token_table(bos))  # [1, d]

            most = min(self.context, history * (longest + 1)) + (bos is not None)
            positions = torch.arange(most, device=device)
            learned, rotation = backbone.position_embeddings(positions), backbone.rotation(positions)
            self.positions = None if learned is None else nn.Buffer(learned)  # [P, d]
            self.cosine = None if rotation is None else nn.Buffer(rotation[0])  # [P, 1, e]
            self.sine = None if rotation is None else nn.Buffer(rotation[1])

            # Nothing of a user goes along: the items' vectors are all that is read of M_cf.
            self.item_column = model.item_column
            if model.collaborative is not None and model.item_column is not None:
                every = torch.arange(len(texts.lengths), device=device)
                self.vectors = nn.Buffer(model.collaborative.item_vectors(every).detach())  # [I, c]
                self.known = nn.Buffer(torch.tensor(layout.known_items, device=device))  # [I]
            self.item_weight = nn.Buffer(model.item_weight.detach())  # [I, d]
        self.item_bias = nn.Buffer(model.item_projection.bias.detach())
        self.centre, self.spread = nn.Buffer(model.centre), nn.Buffer(model.spread)
        replaced = DamoeSpace(len(backbone.layers), model.config.replacement_frequency).damoe_layers
        replacements = dict(zip(replaced, model.layers, strict=False))  # LLMRec has none
        self.layers = nn.ModuleList(
            DenseLayer(layer, replacements.get(index)) for index, layer in enumerate(backbone.layers)
        )
        self.final_norm = backbone.final_norm

    def forward(self, items: Tensor) -> Tensor:
        """Scores [I] of the whole catalogue after `items`, int64 [n] indices, oldest first."""
        x, slots = self._enter(items)
        for layer in self.layers:
            x = layer(x, slots)
        state = self.final_norm(x[-1:])  # the last slot is the newest item's [SEQ]
        return linear((state - self.centre) / self.spread, self.item_weight, self.item_bias)[0]

    def _enter(self, items: Tensor) -> tuple[Tensor, Slots]:
        """What the first layer reads, [S, d]: T slots and [SEQ] for each item, after the BOS where there is one."""
        lengths, device = self.lengths[items], items.device
        numbers = torch.arange(items.shape[0], device=device)
        fits = (lengths + 1).flip(0).cumsum(0).flip(0) <= self.context
        filled = torch.arange(self.tokens.shape[1], device=device) < lengths.unsqueeze(1)
        filled = torch.cat([filled, torch.ones_like(filled[:, :1])], dim=1) & fits.unsqueeze(1)
        words = self.words[self.tokens[items]]
        x = torch.cat([words, self.special.expand_as(words[:, :1])], dim=1).flatten(0, 1)
        owner = numbers.unsqueeze(1).expand_as(filled).flatten()
        real = filled.flatten()
        if self.bos is not None:
            x = torch.cat([self.bos, x])
            owner, real = torch.cat([numbers[:1] - 1, owner]), torch.cat([torch.ones_like(real[:1]), real])
        positions = (real.cumsum(0) - 1).clamp(min=0)
        if self.positions is not None:
            x = x + self.positions[positions]

        # A slot that is not filled sees itself, so that no row of a mask is empty; nobody else sees it.
        order = torch.arange(real.shape[0], device=device)
        itself = order.unsqueeze(1) == order
        causal = (order.unsqueeze(1) >= order) & real | itself
        second = (owner.unsqueeze(1) == owner) & real | itself if self.second_mask == "context" else causal
        columns = None
        first = positions[positions.shape[0] - filled.numel() :].view_as(filled)[:, 0]
        if self.item_column is not None:
            columns = self.item_column(self.vectors[items])
            second = torch.cat([second, (owner.unsqueeze(1) == numbers) & self.known[items]], dim=1)
        return x, Slots(causal, second, columns, self._rotation(positions), self._rotation(first))

    def _rotation(self, positions: Tensor) -> Rotation:
        return None if self.cosine is None or self.sine is None else (self.cosine[positions], self.sine[positions])


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """[S, H, e] queries over [K, G, e] keys that `mask` [S, K] lets them see -> [S, H * e], before the output map."""
    q, k, v = (one.transpose(0, 1).unsqueeze(0) for one in (queries, keys, values))
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
    return mixed[0].transpose(0, 1).flatten(1)


def _site(adapter: SiteAdapter, placement: Placement, inner: Tensor, last: Map, normed: Tensor) -> Tensor:
    """A frozen module that ends in the map `last` of `inner`, [S, n], with what is trained at it (Appendix D)."""
    if isinstance(adapter, Adapter):
        return adapt(adapter, placement, linear(inner, *last), normed)
    return finish(adapter, inner, *last)
