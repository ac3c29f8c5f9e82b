"""MixRec and MixRec_base written from the formulas, one row and one head at a time: the oracle of the fast model.

Every layer attends twice with dense masks, nothing is shared, padded, folded or skipped. Rulings are those of the
digest of the paper, section 7. Everything is fp64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture, LayerDesign, Placement
from search_spaces.damoe import DamoeSpace
from tests.oracles.literal_backbone import FrozenLayer, Map, read_backbone, self_attention
from tests.oracles.literal_collaborative import collaborative_loss, item_vector, mean_of, user_vector
from tests.oracles.literal_rows import ALIGN, SEQ, Column, Row, additive, causal_mask, make_row, second_mask
from trainers.config import AdapterKind, ModelConfig, TrainingConfig
from trainers.data.step import Step


@dataclass(frozen=True)
class LiteralModel:
    """Weights, text and design: all that a row of text needs to become hidden states."""

    backbone: Any
    """OPTModel, LlamaModel or GPT2Model, fp64, in evaluation mode"""
    parameters: Mapping[str, Tensor]
    architecture: Architecture | None
    """None for MixRec_base and LLMRec"""
    config: ModelConfig
    item_tokens: Sequence[Sequence[int]]
    """[I] tokens of each item sentence, without [SEQ]"""
    prompt_tokens: Sequence[int]
    bos_token: int | None
    known_users: Sequence[bool]
    known_items: Sequence[bool]


# ---- rows ----------------------------------------------------------------------------------------------------------


def history_row(model: LiteralModel, user: int | None, items: Sequence[int]) -> Row:
    """X_u = {T_1, [SEQ], ..., T_n, [SEQ]} (2.2.3); an item's [SEQ] belongs to it. `user` None is an unknown one."""
    columns = []
    for number, item in enumerate(items):
        if "item" in _column_kinds(model) and model.known_items[item]:
            columns.append(Column(number, "item", item))
        if "user" in _column_kinds(model) and user is not None and model.known_users[user]:
            columns.append(Column(number, "user", user))
    return make_row([[*model.item_tokens[item], SEQ] for item in items], columns, _leading_bos(model))


def align_row(model: LiteralModel, item: int) -> Row:
    """{Prompt, T_i, [ALIGN]} (2.2.2), one item as a whole; it never sees a user."""
    sees_item = "item" in _column_kinds(model) and model.config.align_sees_item_column and model.known_items[item]
    columns = [Column(0, "item", item)] if sees_item else []
    return make_row([[*model.prompt_tokens, *model.item_tokens[item], ALIGN]], columns, _leading_bos(model))


def _column_kinds(model: LiteralModel) -> list[str]:
    if model.config.kind != "mixrec" or model.config.second_mask == "causal":
        return []
    return model.config.collaborative_columns.split("+")


def _leading_bos(model: LiteralModel) -> int | None:
    if not model.config.leading_bos:
        return None
    if model.bos_token is None:
        raise ValueError("leading_bos is on, but there is no BOS token")
    return model.bos_token


# ---- layers --------------------------------------------------------------------------------------------------------


def hidden_states(model: LiteralModel, row: Row) -> Tensor:
    """[T, d]: the states of `row` after the last layer and the backbone's final norm."""
    decoder = read_backbone(model.backbone)
    damoe_layers = DamoeSpace(len(decoder.layers), model.config.replacement_frequency).damoe_layers
    x = torch.stack([_embed(model, decoder.embed, token) for token in row.tokens])
    if decoder.learned_positions is not None:
        x = x + decoder.learned_positions(row.positions)
    collaborative = _column_vectors(model, row, x.shape[1])

    for index, layer in enumerate(decoder.layers):
        normed = layer.norm_1(x)
        # Ruling 2: the vectors pass through the layer's own input norm before the frozen keys and values.
        normed_columns = layer.norm_1(collaborative)

        def attention(
            mask: Tensor, layer: FrozenLayer = layer, normed: Tensor = normed, columns: Tensor = normed_columns
        ) -> Tensor:
            return self_attention(
                layer, decoder.rotate, normed, row.positions, columns, row.column_positions, additive(mask)
            )

        def expert(
            name: str,
            kind: AdapterKind,
            placement: Placement,
            mask: Tensor,
            layer: FrozenLayer = layer,
            normed: Tensor = normed,
            attention: Callable[..., Tensor] = attention,
        ) -> Tensor:
            if kind != "bottleneck":
                return attention(mask, changed_attention(model, name, kind, layer))
            return adapted(model, name, placement, attention(mask), normed)

        if index not in damoe_layers or model.config.kind == "llmrec":
            x = x + attention(causal_mask(row))
            x = x + layer.feed_forward(layer.norm_2(x))
        elif model.config.kind == "mixrec_base":
            name = f"layers.{damoe_layers.index(index)}"
            x = x + adapter(model, f"{name}.attention_adapter", attention(causal_mask(row)))
            x = x + adapter(model, f"{name}.feed_forward_adapter", layer.feed_forward(layer.norm_2(x)))
        else:
            number = damoe_layers.index(index)
            name, design = f"layers.{number}", _design(model, number)
            kinds, seen = model.config, second_mask(row, model.config.second_mask)
            q = expert(f"{name}.causal_expert", kinds.causal_expert, design.causal_expert, causal_mask(row))
            p = expert(f"{name}.context_expert", kinds.context_expert, design.context_expert, seen)
            x = x + gate(model, f"{name}.gate", q, p)
            normed_2, last = layer.norm_2(x), f"{name}.recommendation_adapter"
            if kinds.recommendation_adapter == "bottleneck":
                fed = layer.feed_forward(normed_2)
                x = x + adapted(model, last, design.recommendation_adapter, fed, normed_2)
            else:
                x = x + changed_feed_forward(model, last, kinds.recommendation_adapter, layer).feed_forward(normed_2)
    return decoder.final_norm(x)


def adapter(model: LiteralModel, name: str, h: Tensor) -> Tensor:
    """Adapter(h) = W2 act(W1 h + b1) + b2 + h (2.2.5; the paper prints no activation)."""
    weights = model.parameters
    inner = h @ weights[f"{name}.down.weight"].T + weights[f"{name}.down.bias"]
    if model.config.activation == "gelu":
        inner = torch.nn.functional.gelu(inner)
    return inner @ weights[f"{name}.up.weight"].T + weights[f"{name}.up.bias"] + h


def adapted(model: LiteralModel, name: str, placement: Placement, frozen: Tensor, h: Tensor) -> Tensor:
    """Adapter_Serial = Adapter(F(h)); Adapter_Parallel = (F(h) + Adapter(h)) / 2 (2.3.3). `frozen` is F(h)."""
    if placement is Placement.SERIAL:
        return adapter(model, name, frozen)
    return (frozen + adapter(model, name, h)) / 2


def changed_attention(model: LiteralModel, name: str, kind: AdapterKind, layer: FrozenLayer) -> FrozenLayer:
    """LoRA: (O + B A) u for the output map O. (IA)3: l_v times the values, those of columns included."""
    weights = model.parameters
    if kind == "lora":
        return replace(layer, output=lambda u: layer.output(u) + u @ _update(model, name).T)
    if kind == "ia3":
        return replace(layer, value=lambda x: layer.value(x) * weights[f"{name}.scale"])
    return layer


def changed_feed_forward(model: LiteralModel, name: str, kind: AdapterKind, layer: FrozenLayer) -> FrozenLayer:
    """LoRA: (W + B A) u for the last map W. (IA)3: W (l_ff * u)."""
    weights = model.parameters
    if kind == "lora":
        return replace(layer, narrow=lambda u: layer.narrow(u) + u @ _update(model, name).T)
    if kind == "ia3":
        return replace(layer, widen=lambda x: layer.widen(x) * weights[f"{name}.scale"])
    return layer


def _update(model: LiteralModel, name: str) -> Tensor:
    """B A, as wide as the map that it is added to."""
    return model.parameters[f"{name}.up.weight"] @ model.parameters[f"{name}.down.weight"]


def gate(model: LiteralModel, name: str, q: Tensor, p: Tensor) -> Tensor:
    """beta = softmax(W [q, p] + b); beta_1 q + beta_2 p, token by token (2.3.3; ruling 1)."""
    logits = torch.cat([q, p], dim=-1) @ model.parameters[f"{name}.weight"].T + model.parameters[f"{name}.bias"]
    beta = torch.softmax(logits, dim=-1)
    return beta[:, 0:1] * q + beta[:, 1:2] * p


def _design(model: LiteralModel, number: int) -> LayerDesign:
    if model.architecture is None:
        raise ValueError("a DAMoE network needs an architecture")
    return model.architecture.layers[number]


def _embed(model: LiteralModel, embed: Map, token: int | str) -> Tensor:
    if token == SEQ:
        return model.parameters["special_tokens"][0]
    if token == ALIGN:
        return model.parameters["special_tokens"][1]
    return embed(torch.tensor(token))


def _column_vectors(model: LiteralModel, row: Row, width: int) -> Tensor:
    """[C, d]: h_user and h_item, one single-layer projection each (2.3.2)."""
    vectors = []
    for column in row.columns:
        read = item_vector if column.kind == "item" else user_vector
        e = read(model.parameters, model.config.collaborative_model, column.index)
        if model.config.collaborative_training != "joint":
            e = e.detach()
        weight, bias = (model.parameters[f"{column.kind}_column.{part}"] for part in ("weight", "bias"))
        vectors.append(weight @ e + bias)
    return torch.stack(vectors) if vectors else torch.zeros(0, width, dtype=torch.float64)


# ---- losses --------------------------------------------------------------------------------------------------------


def seq_states(model: LiteralModel, user: int | None, items: Sequence[int]) -> Tensor:
    """[n, d]: h_SEQ of every item of a history."""
    row = history_row(model, user, items)
    return hidden_states(model, row)[row.places(SEQ)]


def align_state(model: LiteralModel, item: int) -> Tensor:
    """[d]: h_ALIGN of one item."""
    row = align_row(model, item)
    return hidden_states(model, row)[row.places(ALIGN)[0]]


def item_scores(model: LiteralModel, h: Tensor) -> Tensor:
    """[I]: W_item h + b_item; W_item may be E A + F, E the items' text."""
    weight = model.parameters["item_projection.weight"]
    if model.config.item_projection_form == "text+free":
        weight = model.parameters["item_text"].detach() @ model.parameters["text_map.weight"] + weight
    return weight @ h + model.parameters["item_projection.bias"]


def cross_entropy(scores: Tensor, target: int) -> Tensor:
    return -torch.log(torch.softmax(scores, dim=0)[target])


def contrastive_term(h: Tensor, positive: Tensor, negatives: Sequence[Tensor], temperature: float) -> Tensor:
    """One term of L_cl (2.2.4): -log f(h, h+) / (f(h, h+) + sum f(h, h-)), f = exp(cos / tau)."""

    def f(other: Tensor) -> Tensor:
        cosine = (h * other).sum() / (h.square().sum().sqrt() * other.square().sum().sqrt())
        return torch.exp(cosine / temperature)

    return -torch.log(f(positive) / (f(positive) + sum(f(negative) for negative in negatives)))


def literal_losses(
    *,
    backbone: Any,
    parameters: Mapping[str, Tensor],
    architecture: Architecture | None,
    model: ModelConfig,
    training: TrainingConfig,
    step: Step,
    item_tokens: Sequence[Sequence[int]],
    prompt_tokens: Sequence[int],
    bos_token: int | None,
    known_users: Sequence[bool],
    known_items: Sequence[bool],
) -> dict[str, Tensor]:
    """Scalars seq, align, contrastive, collaborative and total (paper, 2.4; means by ruling 6).

    L_cf is zero where `parameters` has no collaborative model, as in MixRec_base of section 2.2.

    Raises:
        ValueError: the configuration drops user columns at random, which a deterministic oracle cannot follow.
    """
    if model.user_column_dropout:
        raise ValueError("the literal model has no user-column dropout: set user_column_dropout to 0")
    literal = LiteralModel(
        backbone, parameters, architecture, model, item_tokens, prompt_tokens, bos_token, known_users, known_items
    )
    rows = [seq_states(literal, user, items) for user, items in zip(step.users, step.inputs, strict=True)]
    in_contrast = {item for anchor in step.anchors for item in (anchor.positive, *anchor.negatives)}
    aligned = {item: align_state(literal, item) for item in sorted({*step.align_items, *in_contrast})}

    seq = mean_of(
        [
            cross_entropy(item_scores(literal, h), target)
            for states, targets in zip(rows, step.targets, strict=True)
            for h, target in zip(states, targets, strict=True)
        ]
    )
    align = mean_of([cross_entropy(item_scores(literal, aligned[item]), item) for item in step.align_items])
    contrastive = mean_of(
        [
            contrastive_term(
                rows[anchor.row][anchor.position],
                aligned[anchor.positive],
                [aligned[item] for item in anchor.negatives],
                training.temperature,
            )
            for anchor in step.anchors
        ]
    )
    trains_collaborative = any(name.startswith("collaborative.") for name in parameters)
    collaborative = collaborative_loss(
        parameters, model.collaborative_model, step.collaborative if trains_collaborative else ()
    )
    total = (
        seq
        + training.lambda_align * align
        + training.lambda_contrastive * contrastive
        + training.lambda_collaborative * collaborative
    )
    return {
        "seq": seq,
        "align": align,
        "contrastive": contrastive,
        "collaborative": collaborative,
        "total": total,
    }


def literal_scores(
    *,
    backbone: Any,
    parameters: Mapping[str, Tensor],
    architecture: Architecture | None,
    model: ModelConfig,
    user: int | None,
    history: Sequence[int],
    item_tokens: Sequence[Sequence[int]],
    prompt_tokens: Sequence[int],
    bos_token: int | None,
    known_users: Sequence[bool],
    known_items: Sequence[bool],
) -> Tensor:
    """[I]: the item scores after the last [SEQ] of `history`, for evaluation; `user` None is an unknown one."""
    literal = LiteralModel(
        backbone, parameters, architecture, model, item_tokens, prompt_tokens, bos_token, known_users, known_items
    )
    return item_scores(literal, seq_states(literal, user, history)[-1])
