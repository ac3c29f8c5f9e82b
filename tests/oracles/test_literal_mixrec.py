"""The literal model's states against transformers' own forward passes, hand-written masks and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from search_spaces.architecture import Placement
from tests.oracles.cases import Case, force_gate, neutral_adapters, random_case, small_model
from tests.oracles.literal_backbone import read_backbone
from tests.oracles.literal_collaborative import item_vector
from tests.oracles.literal_mixrec import (
    LiteralModel,
    adapted,
    align_row,
    gate,
    hidden_states,
    history_row,
    literal_scores,
    seq_states,
)
from tests.oracles.literal_rows import ALIGN, SEQ, Column, Row, causal_mask, context_mask, make_row
from tests.oracles.tiny_backbones import FAMILIES, Family

HISTORY = (4, 1, 4, 2)
UNKNOWN = 8
HALVES = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 64]


def forced_case(family: Family, branch: int, **model: Any) -> Case:
    """Serial adapters that change nothing, and the gate at one branch: the backbone with that branch's mask."""
    case = random_case(family, model=small_model(**model))
    neutral_adapters(case.parameters)
    force_gate(case.parameters, branch)
    return case


def embeddings(case: Case, row: Row) -> Tensor:
    """[1, T, d] token embeddings for transformers, which adds learned positions itself."""
    special = dict(zip((SEQ, ALIGN), case.parameters["special_tokens"], strict=True))
    table = case.backbone.get_input_embeddings().weight
    return torch.stack([special[token] if isinstance(token, str) else table[token] for token in row.tokens])[None]


def largest_difference(left: Tensor, right: Tensor) -> float:
    assert left.shape == right.shape
    return float((left - right).detach().abs().max())


# ---- the frozen backbone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_causal_branch_alone_is_the_backbone(family: Family, frequency: int) -> None:
    case = forced_case(family, 0, replacement_frequency=frequency, collaborative_columns="user+item")
    row = history_row(case.literal, 0, HISTORY)
    expected = case.backbone(inputs_embeds=embeddings(case, row), use_cache=False).last_hidden_state[0]
    assert largest_difference(hidden_states(case.literal, row), expected) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_base_with_neutral_adapters_is_the_backbone(family: Family) -> None:
    case = random_case(family, model=small_model(kind="mixrec_base", leading_bos=True))
    neutral_adapters(case.parameters)
    row = history_row(case.literal, 0, HISTORY)
    assert row.tokens[0] == case.bos_token
    expected = case.backbone(inputs_embeds=embeddings(case, row), use_cache=False).last_hidden_state[0]
    assert largest_difference(hidden_states(case.literal, row), expected) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_context_branch_alone_is_the_backbone_under_a_block_diagonal_mask(family: Family) -> None:
    case = forced_case(family, 1, collaborative_columns="none", leading_bos=True)
    row = history_row(case.literal, 0, HISTORY)
    lengths = [1, *(len(case.item_tokens[item]) + 1 for item in HISTORY)]
    items = torch.tensor([number for number, length in enumerate(lengths) for _ in range(length)])
    blocks = items[:, None] == items[None, :]
    mask = torch.zeros(blocks.shape, dtype=torch.float64).masked_fill(~blocks, -torch.inf)
    expected = case.backbone(
        inputs_embeds=embeddings(case, row),
        attention_mask=mask[None, None],
        position_ids=torch.arange(len(items))[None],
        use_cache=False,
    )
    assert largest_difference(hidden_states(case.literal, row), expected.last_hidden_state[0]) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_a_column_is_a_cached_key_and_value_of_every_layer(family: Family) -> None:
    case = forced_case(family, 1)
    item = 3
    row = align_row(case.literal, item)
    vector = case.parameters["item_column.weight"] @ item_vector(case.parameters, "ncf", item)
    vector = (vector + case.parameters["item_column.bias"])[None]
    cache = DynamicCache()
    for index, layer in enumerate(read_backbone(case.backbone).layers):
        # Position 0 is the item's first token, so a rotary key is not turned at all.
        key = layer.key(layer.norm_1(vector)).view(1, 1, layer.kv_heads, -1).transpose(1, 2)
        value = layer.value(layer.norm_1(vector)).view(1, 1, layer.kv_heads, -1).transpose(1, 2)
        cache.update(key, value, index)
    size = len(row.tokens)
    expected = case.backbone(
        inputs_embeds=embeddings(case, row),
        attention_mask=torch.zeros(1, 1, size, size + 1, dtype=torch.float64),
        position_ids=torch.arange(size)[None],
        past_key_values=cache,
        use_cache=True,
    )
    assert largest_difference(hidden_states(case.literal, row), expected.last_hidden_state[0]) < 1e-10


# ---- masks ---------------------------------------------------------------------------------------------------------


def test_masks_of_a_small_row_equal_those_written_by_hand() -> None:
    columns = [Column(0, "item", 5), Column(0, "user", 2), Column(1, "user", 2)]
    row = make_row([[10, 11, SEQ], [12, SEQ]], columns, bos_token=1)
    assert row.tokens == (1, 10, 11, SEQ, 12, SEQ)
    assert row.column_positions == (1, 1, 4)
    #           BOS  10  11 SEQ  12 SEQ | item 5, user 2 for item 0, user 2 for item 1
    context = [
        "100000000",  # BOS
        "011100110",  # 10
        "011100110",  # 11
        "011100110",  # [SEQ]
        "000011001",  # 12
        "000011001",  # [SEQ]
    ]
    causal = ["100000000", "110000000", "111000000", "111100000", "111110000", "111111000"]
    assert as_text(context_mask(row)) == context
    assert as_text(causal_mask(row)) == causal


def as_text(mask: Tensor) -> list[str]:
    return ["".join("1" if seen else "0" for seen in line) for line in mask.tolist()]


@pytest.mark.parametrize(
    ("mode", "history", "align"),
    [
        ("none", [], []),
        ("item", [(0, "item", 4), (2, "item", 2)], [(0, "item", 4)]),
        ("user", [(0, "user", 1), (1, "user", 1), (2, "user", 1)], []),
        (
            "user+item",
            [(0, "item", 4), (0, "user", 1), (1, "user", 1), (2, "item", 2), (2, "user", 1)],
            [(0, "item", 4)],
        ),
    ],
)
def test_columns_of_each_mode(mode: str, history: list[Any], align: list[Any]) -> None:
    model = random_case("opt", model=small_model(collaborative_columns=mode)).literal
    hidden = random_case("opt", model=small_model(collaborative_columns=mode, align_sees_item_column=False)).literal
    assert history_row(model, 1, (4, UNKNOWN, 2)).columns == tuple(Column(*column) for column in history)
    assert align_row(model, 4).columns == tuple(Column(*column) for column in align)
    assert align_row(model, UNKNOWN).columns == ()
    assert align_row(hidden, 4).columns == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_user_and_unknown_items_leave_no_column(family: Family) -> None:
    case = random_case(family, "010-111", small_model(collaborative_columns="user+item"))
    without = replace(case, model=small_model(collaborative_columns="none"))
    history = [UNKNOWN, UNKNOWN]
    expected = literal_scores(**without.scoring(None, history))
    assert largest_difference(literal_scores(**case.scoring(4, history)), expected) == 0
    assert largest_difference(literal_scores(**case.scoring(None, history)), expected) == 0
    assert largest_difference(literal_scores(**case.scoring(0, history)), expected) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_later_item_changes_no_earlier_state(family: Family) -> None:
    model = random_case(family, "010-101", small_model(collaborative_columns="user+item", leading_bos=True)).literal
    left, right = seq_states(model, 0, (4, 1, 7)), seq_states(model, 0, (4, 1, 3, 5))
    assert largest_difference(left[:2], right[:2]) < 1e-13
    assert largest_difference(left[2:], right[2:3]) > 1e-3


# ---- positions of columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["item", "user", "user+item"])
def test_rotary_columns_are_shift_invariant(mode: str) -> None:
    model = random_case("llama", "010-111", small_model(collaborative_columns=mode)).literal
    row = history_row(model, 0, HISTORY)
    shifted = replace(row, positions=tuple(position + 23 for position in row.positions))
    assert largest_difference(hidden_states(model, row), hidden_states(model, shifted)) < 1e-12


@pytest.mark.parametrize("mode", ["item", "user", "user+item"])
def test_rotary_columns_move_with_the_item_that_looks(mode: str) -> None:
    model = forced_case("llama", 1, collaborative_columns=mode).literal
    together = seq_states(model, 0, HISTORY)
    alone = torch.cat([seq_states(model, 0, (item,)) for item in HISTORY])
    assert largest_difference(together, alone) < 1e-12


# ---- adapters and gate ---------------------------------------------------------------------------------------------


def scalar_model(**parameters: Sequence[Any]) -> LiteralModel:
    case = random_case("opt")
    values = {name.replace("__", "."): torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    return replace(case.literal, parameters=values)


def additive_opt_masks(size: int) -> tuple[Tensor, Tensor]:
    """Causal and one-item context masks of transformers, [1, 1, T, T]."""
    later = torch.ones(size, size).triu(1).bool()
    context = torch.zeros(1, 1, size, size, dtype=torch.float64)
    return context.masked_fill(later, -torch.inf), context


@pytest.mark.parametrize("branch", [0, 1])
def test_parallel_adapters_read_the_normed_states(branch: int) -> None:
    """x + (Attn(n1) + n1) / 2, then + (FFN(n2) + n2) / 2, with transformers' own attention (ruling 1)."""
    case = random_case("opt", "111", small_model(collaborative_columns="none"), layers=1)
    neutral_adapters(case.parameters)
    force_gate(case.parameters, branch)
    row = align_row(case.literal, 3)
    decoder, layer, size = case.backbone.decoder, case.backbone.decoder.layers[0], len(row.tokens)
    x = embeddings(case, row) + decoder.embed_positions.weight[2 : 2 + size]
    normed = layer.self_attn_layer_norm(x)
    x = x + (layer.self_attn(normed, attention_mask=additive_opt_masks(size)[branch])[0] + normed) / 2
    normed = layer.final_layer_norm(x)
    x = x + (layer.fc2(layer.activation_fn(layer.fc1(normed))) + normed) / 2
    assert largest_difference(hidden_states(case.literal, row), decoder.final_layer_norm(x)[0]) < 1e-12


def test_every_second_layer_is_replaced() -> None:
    case = random_case("opt", model=small_model(collaborative_columns="none", replacement_frequency=2), layers=5)
    neutral_adapters(case.parameters)
    force_gate(case.parameters, 1)
    row = align_row(case.literal, 3)
    size = len(row.tokens)
    causal, context = additive_opt_masks(size)
    x = embeddings(case, row) + case.backbone.decoder.embed_positions.weight[2 : 2 + size]
    for layer, mask in zip(case.backbone.decoder.layers, (causal, context, causal, context, causal), strict=True):
        x = layer(x, attention_mask=mask)
    expected = case.backbone.decoder.final_layer_norm(x)[0]
    assert largest_difference(hidden_states(case.literal, row), expected) < 1e-12


def test_adapter_placements_by_hand() -> None:
    model = scalar_model(a__down__weight=[[3.0]], a__down__bias=[1.0], a__up__weight=[[0.5]], a__up__bias=[-1.0])
    frozen, h = torch.tensor([[10.0]]).double(), torch.tensor([[2.0]]).double()
    # Adapter(10) = .5 (3 * 10 + 1) - 1 + 10; (10 + Adapter(2)) / 2 with Adapter(2) = .5 (3 * 2 + 1) - 1 + 2
    assert float(adapted(model, "a", Placement.SERIAL, frozen, h)) == 24.5
    assert float(adapted(model, "a", Placement.PARALLEL, frozen, h)) == 7.25
    smooth = replace(model, config=small_model(activation="gelu"))
    gelu = 7 * 0.5 * (1 + math.erf(7 / math.sqrt(2)))
    assert float(adapted(smooth, "a", Placement.PARALLEL, frozen, h)) == pytest.approx((10 + 0.5 * gelu + 1) / 2)


def test_gate_by_hand() -> None:
    model = scalar_model(g__weight=[[0.0, 0.0], [0.0, math.log(2)]], g__bias=[math.log(6), 0.0])
    # logits (log 6, p log 2): p = 1 gives beta (3/4, 1/4)
    mixed = gate(model, "g", torch.tensor([[5.0]]).double(), torch.tensor([[1.0]]).double())
    assert float(mixed) == pytest.approx(0.75 * 5 + 0.25 * 1, abs=1e-15)
