"""The literal LoRA and (IA)3 against transformers' own forward pass, with the changes merged into a copy's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracles.cases import Case, force_gate, random_case, small_model
from tests.oracles.literal_mixrec import hidden_states, history_row
from tests.oracles.test_literal_mixrec import embeddings, largest_difference
from tests.oracles.tiny_backbones import FAMILIES, Family
from trainers.config import AdapterKind

HISTORY = (4, 1, 4, 2)


def maps_of(layer: Any, family: Family) -> tuple[Tensor, Tensor]:
    """The last maps of attention and feed-forward, [d, n]: views that may be written to."""
    if family == "opt":
        return layer.self_attn.out_proj.weight, layer.fc2.weight
    if family == "llama":
        return layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight
    return layer.attn.c_proj.weight.T, layer.mlp.c_proj.weight.T


def scale_values(layer: Any, family: Family, scale: Tensor) -> None:
    if family == "gpt2":
        width = len(scale)
        layer.attn.c_attn.weight[:, 2 * width :] *= scale
        layer.attn.c_attn.bias[2 * width :] *= scale
        return
    projection = layer.self_attn.v_proj
    projection.weight *= scale[:, None]
    if projection.bias is not None:
        projection.bias *= scale


@torch.no_grad()
def merged(case: Case, family: Family, expert: str, kinds: tuple[AdapterKind, AdapterKind]) -> Any:
    """A copy of the backbone that computes what the changed one does."""
    backbone = deepcopy(case.backbone)
    layers = {"opt": lambda: backbone.decoder.layers, "llama": lambda: backbone.layers, "gpt2": lambda: backbone.h}
    for number, layer in enumerate(layers[family]()):
        names = (f"layers.{number}.{expert}", f"layers.{number}.recommendation_adapter")
        for weight, name, kind in zip(maps_of(layer, family), names, kinds, strict=True):
            if kind == "lora":
                weight += case.parameters[f"{name}.up.weight"] @ case.parameters[f"{name}.down.weight"]
        if kinds[0] == "ia3":
            scale_values(layer, family, case.parameters[f"{names[0]}.scale"])
        if kinds[1] == "ia3":
            maps_of(layer, family)[1].mul_(case.parameters[f"{names[1]}.scale"])
    return backbone


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", [("lora", "none"), ("none", "lora"), ("ia3", "none"), ("none", "ia3")])
@pytest.mark.parametrize("branch", [0, 1])
def test_a_change_is_the_backbone_with_changed_weights(
    family: Family, kinds: tuple[AdapterKind, AdapterKind], branch: int
) -> None:
    """The context branch sees one item here, whose last token sees what the causal one does."""
    expert = ("causal_expert", "context_expert")[branch]
    changed = {expert: kinds[0], "recommendation_adapter": kinds[1]}
    case = random_case(family, "011-110", small_model(collaborative_columns="none", **changed))
    force_gate(case.parameters, branch)
    row = history_row(case.literal, 0, HISTORY if branch == 0 else HISTORY[:1])
    size = len(row.tokens)
    mask = torch.zeros(1, 1, size, size, dtype=torch.float64)
    if branch == 0:
        mask = mask.masked_fill(torch.ones(size, size).triu(1).bool(), -torch.inf)
    expected = merged(case, family, expert, kinds)(
        inputs_embeds=embeddings(case, row),
        attention_mask=mask,
        position_ids=torch.arange(size)[None],
        use_cache=False,
    )
    assert largest_difference(hidden_states(case.literal, row), expected.last_hidden_state[0]) < 1e-10
