"""Options that change how a step is computed: what stays equal, and what is only close."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from search_spaces.architecture import Architecture
from tests.oracles.cases import Case, gradients, random_case, small_model
from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.model.test_mixrec_equals_literal import fast_losses, fast_model, layout_of
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.data.batches import collate
from trainers.model.damoe import BaseLayer, DamoeLayer
from trainers.model.mixrec import MixRec
from trainers.task import build_model

SAME = 1e-12
every_family = pytest.mark.parametrize("family", FAMILIES)


def a_case(family: Family, design: str = "011-100", **training: Any) -> Case:
    case = random_case(family, design, model=small_model(collaborative_columns="user+item"), rows=4)
    return replace(case, training=replace(case.training, **training))


def losses_and_gradients(model: MixRec, case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """With the bytes that autograd keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = fast_losses(model, case)
    return losses, gradients(losses["total"], dict(model.named_parameters())), sum(kept.values())


@every_family
def test_checkpointing_keeps_less_and_changes_nothing(family: Family) -> None:
    plain = a_case(family)
    expected, of_parameters, bytes_kept = losses_and_gradients(fast_model(plain), plain)
    thrifty = a_case(family, activation_checkpointing=True)
    losses, recomputed, fewer_bytes = losses_and_gradients(fast_model(thrifty), thrifty)
    for name, value in expected.items():
        assert abs(losses[name] - value).item() < SAME, name
    for name, value in of_parameters.items():
        assert (recomputed[name] - value).abs().max().item() < SAME, name
    assert fewer_bytes < 0.7 * bytes_kept


@every_family
def test_bfloat16_is_close(family: Family) -> None:
    exact_case = a_case(family)
    exact, of_parameters, _ = losses_and_gradients(fast_model(exact_case), exact_case)
    case = a_case(family, precision="bfloat16")
    case.backbone.float()
    model = fast_model(case).float()
    losses, approximate, _ = losses_and_gradients(model, case)
    for name, value in exact.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=0.02), name
        assert losses[name].dtype == torch.float32
    for name, value in of_parameters.items():
        if value.abs().max() > 1e-6:
            assert cosine_similarity(approximate[name].double().flatten(), value.flatten(), dim=0) > 0.95, name
    layer = model.layers[0]
    assert isinstance(layer, DamoeLayer)
    off = (approximate["layers.0.causal_expert.up.weight"] - of_parameters["layers.0.causal_expert.up.weight"]).abs()
    assert off.max() > 1e-6, "the option must do something"


@every_family
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("design", ["".join(bits) + "010" for bits in itertools.product("01", repeat=3)] + ["base"])
def test_folded_adapters_score_as_unfolded_ones(family: Family, activation: str, design: str) -> None:
    kind = "mixrec_base" if design == "base" else "mixrec"
    model = small_model(kind=kind, activation=activation, collaborative_columns="item")
    case = random_case(family, None if design == "base" else design, model=model)
    fast, layout = fast_model(case), layout_of(case)
    rows = layout.histories([[1, 2, 8], [3]], [0, -1], read_newest=1)
    with torch.no_grad():
        unfolded = fast.train().scores(rows)
        folded = fast.eval().scores(rows)
        assert (unfolded - folded).abs().max().item() < SAME
        for number, layer in enumerate(fast.layers):
            assert isinstance(layer, DamoeLayer | BaseLayer)
            serial = design == "base" or design[3 * number + 2] == "0"
            assert (layer._folded is not None) == (serial and activation == "none")
        if activation == "none" and (design == "base" or "0" in (design[2], design[5])):
            for name, parameter in fast.named_parameters():
                if name.endswith("up.weight"):
                    parameter.mul_(3.0)
            assert fast.train().eval().scores(rows).sub(folded).abs().max().item() > 1e-3, "training unfolds"


@every_family
def test_evaluation_mode_still_has_gradients(family: Family) -> None:
    case = a_case(family, "000-000")
    model = fast_model(case)
    expected = gradients(fast_losses(model, case)["total"], dict(model.named_parameters()))
    got = gradients(fast_losses(model.eval(), case)["total"], dict(model.named_parameters()))
    for name, value in expected.items():
        assert (got[name] - value).abs().max().item() < SAME, name


@pytest.mark.parametrize(("loss", "is_exact"), [("sampled_softmax", True), ("gbce", False)])
def test_a_sample_of_everything(loss: str, is_exact: bool) -> None:
    """The whole catalogue as sample is the exact softmax; gBCE is another loss."""
    plain = a_case("llama")
    exact = fast_losses(fast_model(plain), plain)
    case = a_case("llama", item_loss=loss)
    case = replace(case, step=replace(case.step, sampled_items=tuple(range(len(case.item_tokens)))))
    sampled = fast_losses(fast_model(case), case)
    for name in ("seq", "align"):
        assert (abs(sampled[name] - exact[name]).item() < 1e-9) == is_exact
    for name in ("contrastive", "collaborative"):
        assert abs(sampled[name] - exact[name]).item() < SAME


def test_dropout_before_the_projection_leaves_out_what_its_seed_says() -> None:
    """The same seed the same values, another seed others; nothing in evaluation; the loss rises on average."""
    case = random_case("llama", model=small_model(projection_dropout=0.4), rows=4)
    model, layout = fast_model(case), layout_of(case)

    def seq_loss(seed: int) -> float:
        return float(model(collate(replace(case.step, seed=seed), layout))["seq"])

    assert seq_loss(1) == seq_loss(1)
    losses = torch.tensor([seq_loss(seed) for seed in range(300)])
    assert losses.std() > 0
    whole = fast_model(replace(case, model=small_model()))
    exact = float(whole(collate(case.step, layout))["seq"])
    model.eval()
    assert seq_loss(1) == seq_loss(2) == pytest.approx(exact)
    # The cross entropy is convex in the logits, so dropping values can only raise its mean (Jensen).
    assert float(losses.mean()) > exact


@every_family
def test_a_text_part_starts_where_the_aligned_free_matrix_does(family: Family) -> None:
    task = tiny_task(family=family)
    design = Architecture.parse("010-001")
    free = build_model(tiny_config(), design, task, seed=0)
    text = build_model(tiny_config({"item_projection_form": "text+free"}), design, task, seed=0)
    assert (text.item_weight - free.item_weight).abs().max().item() < 1e-9
    assert text.item_projection.weight.abs().max().item() == 0
    assert text.text_map is not None
    assert text.text_map.weight.requires_grad
    assert "item_text" not in dict(text.named_parameters())
