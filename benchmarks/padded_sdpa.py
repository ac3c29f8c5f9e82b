"""MixRec as one would write it with padding and PyTorch's attention: what `benchmarks/training_speed.py` compares with.

No benchmark by itself. Rows are padded on the right to [B, T]; the context branch has a dense mask over the padded row;
everything else is the straightforward choice: Q, K and V once for both branches, blockwise attention for both (a mask
for the context branch alone), grouped-query attention without copies, each [ALIGN] sequence once a step, the item
projection at the read states only, no gradient for a frozen weight. Norms, feed-forward and rotation are those of
transformers. Losses and gradients equal those of `MixRec` (tests/benchmarks/test_padded_sdpa.py).

Legend: B rows, T tokens of the longest row, n items of the longest row, C columns (n for each kind), d hidden width,
H query heads, G key-value heads, e head size, Q states that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, linear, normalize, scaled_dot_product_attention
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from search_spaces.architecture import Architecture, LayerDesign, Placement
from trainers.data.batches import Batch, Layout, collate
from trainers.data.rows import ALIGN, SEQ
from trainers.data.step import Step
from trainers.model.mixrec import MixRec

NOBODY = -1


@dataclass(frozen=True)
class PaddedRows:
    """Token rows of unequal length, padded on the right."""

    tokens: Tensor
    """[B, T]; 0 where a special token or nothing stands"""
    special: Tensor
    """[B, T] where the special token stands that ends an item: these states are read"""
    kind: int
    """`SEQ` or `ALIGN`"""
    sees: Tensor
    """[B, 1, T, T + C] the context branch's mask: the own item's tokens, then its columns"""
    column_positions: Tensor
    """[B, C] position of the first token of the column's item"""
    column_items: Tensor | None
    """[B, n] whose vector each item sees, 0 where `sees` hides it; None: no such columns"""
    column_users: Tensor | None
    """[B, 1], likewise: the row's user, whom each of its n columns repeats"""


@dataclass(frozen=True)
class PaddedBatch:
    """One step: the rows, and the losses' indices into the states that are read."""

    histories: PaddedRows
    alignments: PaddedRows
    terms: Batch
    """Only its indices are used: states are read in the same order"""

    @property
    def counts(self) -> dict[str, int]:
        return self.terms.counts

    @property
    def num_tokens(self) -> int:
        """Places, padding included."""
        return self.histories.tokens.numel() + self.alignments.tokens.numel()


def collate_padded(step: Step, layout: Layout) -> PaddedBatch:
    """Lay out a step with at least one history and one aligned item."""
    terms = collate(step, layout)
    aligned = terms.align_items.tolist()
    users = [
        NOBODY if not layout.user_column or user < 0 or row in step.hidden_user_columns else user
        for row, user in enumerate(step.users)
    ]
    rows = [(item,) for item in aligned]
    return PaddedBatch(
        _pad(step.inputs, users, layout, SEQ, (), layout.item_column, layout.user_column),
        _pad(rows, [NOBODY] * len(rows), layout, ALIGN, layout.prompt, layout.align_column, False),
        terms,
    )


def _pad(
    inputs: Sequence[Sequence[int]],
    users: Sequence[int],
    layout: Layout,
    kind: int,
    prompt: Sequence[int],
    item_column: bool,
    user_column: bool,
) -> PaddedRows:
    text = layout.item_tokens
    bos = [] if layout.bos_token is None else [layout.bos_token]
    items = max(len(row) for row in inputs)
    words = [[text.tokens[text.offsets[item] : text.offsets[item + 1]].tolist() for item in row] for row in inputs]
    longest = max(len(bos) + sum(len(prompt) * (i == 0) + len(w) + 1 for i, w in enumerate(row)) for row in words)
    tokens = torch.zeros(len(inputs), longest, dtype=torch.int64)
    special = torch.zeros(len(inputs), longest, dtype=torch.bool)
    owners = torch.full((len(inputs), longest), NOBODY)
    starts = torch.zeros(len(inputs), items, dtype=torch.int64)
    shown = torch.full((len(inputs), items), NOBODY)
    for row, (sequence, sentences) in enumerate(zip(inputs, words, strict=True)):
        line = list(bos)
        for number, (item, sentence) in enumerate(zip(sequence, sentences, strict=True)):
            starts[row, number] = len(line)
            line += [*(prompt if number == 0 else ()), *sentence, 0]
            owners[row, int(starts[row, number]) : len(line)] = number
            special[row, len(line) - 1] = True
            if layout.known_items[item]:
                shown[row, number] = item
        tokens[row, : len(line)] = torch.tensor(line)
    # A leading BOS and padding belong to no item and see themselves, so that no row of the mask is empty.
    same = (owners.unsqueeze(2) == owners.unsqueeze(1)) & (owners != NOBODY).unsqueeze(1)
    sees = [same | torch.eye(longest, dtype=torch.bool)]
    own = owners.unsqueeze(2) == torch.arange(items)  # [B, T, n]
    user = torch.tensor(users).unsqueeze(1)
    if item_column:
        sees.append(own & (shown != NOBODY).unsqueeze(1))
    if user_column:
        sees.append(own & (user != NOBODY).unsqueeze(1))
    return PaddedRows(
        tokens,
        special,
        kind,
        torch.cat(sees, dim=2).unsqueeze(1),
        starts.repeat(1, len(sees) - 1),
        shown.clamp(min=0) if item_column else None,
        user.clamp(min=0) if user_column else None,
    )


class PaddedMixRec:
    """The same function of the same parameters as a `MixRec` in which every layer is a DAMoE layer.

    Args:
        model: lends its parameters, under the names of its `state_dict`, and its collaborative model.
        body: the frozen backbone of `model`.
        temperature: tau of the contrastive loss.

    Raises:
        ValueError: MixRec_base, frozen layers between replaced ones, or a site that is no bottleneck.
    """

    def __init__(self, model: MixRec, body: LlamaModel, architecture: Architecture, temperature: float) -> None:
        if model.config.kind != "mixrec" or len(architecture.layers) != len(body.layers):
            raise ValueError("every layer has to be a DAMoE layer")
        kinds = {model.config.causal_expert, model.config.context_expert, model.config.recommendation_adapter}
        if kinds != {"bottleneck"}:
            raise ValueError("every adapter has to be a bottleneck")
        self.body, self.architecture, self.model, self.temperature = body, architecture, model, temperature
        self.weights = dict(model.named_parameters()) | dict(model.named_buffers())
        self.activate = gelu if model.config.activation == "gelu" else lambda x: x

    def __call__(self, batch: PaddedBatch) -> dict[str, Tensor]:
        """Sums of the losses, as `MixRec.forward`."""
        terms, collaborative = batch.terms, self.model.collaborative
        histories, alignments = self.encode(batch.histories), self.encode(batch.alignments)
        align_targets = terms.align_items[terms.align_terms]
        sums = {
            "seq": cross_entropy(self._item_logits(histories), terms.targets, reduction="sum"),
            "align": cross_entropy(self._item_logits(alignments[terms.align_terms]), align_targets, reduction="sum"),
        }
        if len(terms.anchors):
            anchors = normalize(histories[terms.anchors], dim=-1).unsqueeze(1)
            similarity = (anchors * normalize(alignments, dim=-1)[terms.candidates]).sum(dim=-1)
            positive = torch.zeros(len(similarity), dtype=torch.int64)
            sums["contrastive"] = cross_entropy(similarity / self.temperature, positive, reduction="sum")
        if collaborative is not None and len(terms.collaborative_users):
            total, number = collaborative.loss_terms(
                terms.collaborative_users, terms.collaborative_positives, terms.collaborative_negatives
            )
            sums["collaborative"] = total * (len(terms.collaborative_users) / number)
        return sums

    def encode(self, rows: PaddedRows) -> Tensor:
        """[Q, d] final states at the special tokens, row after row."""
        x = self.body.embed_tokens(rows.tokens)
        x = torch.where(rows.special.unsqueeze(-1), self.weights["special_tokens"][rows.kind], x)
        positions = torch.arange(rows.tokens.shape[1]).unsqueeze(0)
        at_tokens = self.body.rotary_emb(x, positions)
        at_columns = self.body.rotary_emb(x, rows.column_positions)
        columns = self._columns(rows)
        for number, design in enumerate(self.architecture.layers):
            x = self._layer(number, design, x, columns, rows.sees, at_tokens, at_columns)
        final: Tensor = self.body.norm(x)
        return final[rows.special]

    def _item_logits(self, states: Tensor) -> Tensor:
        standardised = (states - self.weights["centre"]) / self.weights["spread"]
        return linear(standardised, self.weights["item_projection.weight"], self.weights["item_projection.bias"])

    def _columns(self, rows: PaddedRows) -> Tensor | None:
        """[B, C, d]"""
        model, vectors = self.model, []
        if model.collaborative is not None and rows.column_items is not None:
            assert model.item_column is not None
            vectors.append(model.item_column(model.collaborative.item_vectors(rows.column_items)))
        if model.collaborative is not None and rows.column_users is not None:
            assert model.user_column is not None
            of_user = model.user_column(model.collaborative.user_vectors(rows.column_users))
            repeats = rows.column_positions.shape[1] // (len(vectors) + 1)
            vectors.append(of_user.expand(-1, repeats, -1))
        return torch.cat(vectors, dim=1) if vectors else None

    def _layer(
        self,
        number: int,
        design: LayerDesign,
        x: Tensor,
        columns: Tensor | None,
        sees: Tensor,
        at_tokens: tuple[Tensor, Tensor],
        at_columns: tuple[Tensor, Tensor],
    ) -> Tensor:
        """One DAMoE layer on [B, T, d] (paper, 2.3.3)."""
        layer: Any = self.body.layers[number]
        attention, name = layer.self_attn, f"layers.{number}"

        def heads(flat: Tensor) -> Tensor:
            return flat.view(*flat.shape[:2], -1, attention.head_dim).transpose(1, 2)

        def attend(keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
            mixed = scaled_dot_product_attention(
                queries, keys, values, mask, is_causal=mask is None, scale=attention.scaling, enable_gqa=True
            )
            return attention.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

        normed = layer.input_layernorm(x)
        keys, values = heads(attention.k_proj(normed)), heads(attention.v_proj(normed))
        queries, keys = apply_rotary_pos_emb(heads(attention.q_proj(normed)), keys, *at_tokens)
        causal = attend(keys, values, None)
        if columns is not None:
            normed_columns = layer.input_layernorm(columns)
            column_keys, column_values = (
                heads(attention.k_proj(normed_columns)),
                heads(attention.v_proj(normed_columns)),
            )
            column_keys, _ = apply_rotary_pos_emb(column_keys, column_keys, *at_columns)
            keys, values = torch.cat([keys, column_keys], dim=2), torch.cat([values, column_values], dim=2)
        context = attend(keys, values, sees)

        q = self._adapted(f"{name}.causal_expert", design.causal_expert, causal, normed)
        p = self._adapted(f"{name}.context_expert", design.context_expert, context, normed)
        logits = linear(
            torch.cat([q, p], dim=-1), self.weights[f"{name}.gate.weight"], self.weights[f"{name}.gate.bias"]
        )
        beta = logits.softmax(dim=-1)
        x = x + beta[..., :1] * q + beta[..., 1:] * p
        normed = layer.post_attention_layernorm(x)
        fed = layer.mlp(normed)
        return x + self._adapted(f"{name}.recommendation_adapter", design.recommendation_adapter, fed, normed)

    def _adapted(self, name: str, placement: Placement, output: Tensor, given: Tensor) -> Tensor:
        """`Adapter(F(h))`, or `(F(h) + Adapter(h)) / 2`."""
        h = output if placement is Placement.SERIAL else given
        down, up = (
            (self.weights[f"{name}.{part}.weight"], self.weights[f"{name}.{part}.bias"]) for part in ("down", "up")
        )
        adapter = linear(self.activate(linear(h, *down)), *up) + h
        return adapter if placement is Placement.SERIAL else (output + adapter) / 2
