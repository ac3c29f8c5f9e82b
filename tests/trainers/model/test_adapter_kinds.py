"""LoRA, (IA)3 and no adapter at each site: against the literal model, at their start, counted, folded and traced."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from search_spaces.architecture import Architecture
from tests.oracles.cases import Case, force_gate, gradients, random_case, small_model
from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.model.test_mixrec_equals_literal import assert_equal_to_literal, fast_losses, fast_model, layout_of
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.config import AdapterKind
from trainers.data.batches import collate
from trainers.data.rows import Rows
from trainers.losses import weighted_loss
from trainers.model.damoe import DamoeLayer
from trainers.model.mixrec import MixRec, decode
from trainers.task import TrainingTask, build_model

SITES = ("causal_expert", "context_expert", "recommendation_adapter")
KINDS: tuple[AdapterKind, ...] = get_args(AdapterKind)
OTHERS = KINDS[1:]
SAME = 1e-12
every_family = pytest.mark.parametrize("family", FAMILIES)
Three = tuple[AdapterKind, AdapterKind, AdapterKind]

PAIRS: list[Three] = [(KINDS[a], KINDS[b], KINDS[a ^ b]) for a, b in product(range(4), repeat=2)]
"""Every two kinds meet at every two sites."""
PAIRS_OF_OTHERS: list[Three] = [(OTHERS[a], OTHERS[b], OTHERS[(a + b) % 3]) for a, b in product(range(3), repeat=2)]


def at_sites(kinds: Three, **model: Any) -> dict[str, Any]:
    return {**dict(zip(SITES, kinds, strict=True)), **model}


def everywhere(kind: AdapterKind, **model: Any) -> dict[str, Any]:
    return at_sites((kind, kind, kind), **model)


def case_of(family: Family, design: str, model: dict[str, Any], **training: Any) -> Case:
    case = random_case(family, design, model=small_model(collaborative_columns="user+item", **model), rows=4)
    return replace(case, training=replace(case.training, **training))


# ---- the formulas --------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("number", range(len(PAIRS)), ids=["-".join(kinds) for kinds in PAIRS])
def test_losses_and_gradients_are_the_literal_models(family: Family, number: int) -> None:
    """The bits of the second layer are the opposite ones, so that each site has both placements."""
    bits = f"{number % 8:03b}"
    opposite = f"{7 - number % 8:03b}"
    assert_equal_to_literal(case_of(family, f"{bits}-{opposite}", at_sites(PAIRS[number])))


OPTIONS: dict[str, dict[str, Any]] = {
    "causal": at_sites(("lora", "ia3", "none"), second_mask="causal"),
    "causal-and-columns": at_sites(("none", "lora", "ia3"), second_mask="causal+columns", leading_bos=True),
    "gelu": at_sites(("bottleneck", "lora", "bottleneck"), activation="gelu"),
    "every-second-layer": at_sites(("ia3", "lora", "lora"), replacement_frequency=2),
}


@every_family
@pytest.mark.parametrize("option", OPTIONS)
def test_kinds_go_with_other_options(family: Family, option: str) -> None:
    changes = OPTIONS[option]
    bits = "010" if "replacement_frequency" in changes else "010-101"
    assert_equal_to_literal(random_case(family, bits, model=small_model(**changes), seed=1))


# ---- at the start --------------------------------------------------------------------------------------------------


@cache
def task_of(family: Family) -> TrainingTask:
    return tiny_task(family=family)


def fresh(family: Family, model: dict[str, Any], design: str = "010-101") -> MixRec:
    return build_model(tiny_config(model), Architecture.parse(design), task_of(family), seed=0)


def some_rows(model: MixRec) -> Rows:
    return task_of("llama").layout(model.config).histories([[1, 2, 8, 1], [3], [8, 0]], [0, -1, 2])


@torch.no_grad()
def states_of(model: MixRec) -> Tensor:
    return model.encode(some_rows(model))


@every_family
@pytest.mark.parametrize("kinds", PAIRS_OF_OTHERS, ids="-".join)
def test_training_starts_at_the_frozen_modules(family: Family, kinds: Three) -> None:
    """Whatever the kinds, as without any; with the gate at the causal branch, that is the backbone."""
    model, bare = fresh(family, at_sites(kinds)), fresh(family, everywhere("none"))
    shared = {name: value for name, value in model.state_dict().items() if name in bare.state_dict()}
    bare.load_state_dict(shared)  # kinds differ in how many random numbers they draw
    assert (states_of(model) - states_of(bare)).abs().max().item() < SAME
    force_gate(dict(model.named_parameters()), 0)
    with torch.no_grad():
        frozen = decode(model.backbone, some_rows(model), model.special_tokens, None, {})
    assert (states_of(model) - frozen).abs().max().item() < SAME


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", SITES)
def test_the_placement_bit_moves_a_bottleneck_and_nothing_else(kind: AdapterKind, site: str) -> None:
    case = case_of("llama", "000-000", {site: kind})
    bit = SITES.index(site)
    moved = "".join("1" if number == bit else "0" for number in range(3))
    serial, parallel = (
        fast_losses(fast_model(one), one)["total"].item()
        for one in (case, replace(case, architecture=Architecture.parse(f"{moved}-{moved}")))
    )
    assert (serial == parallel) == (kind != "bottleneck")


# ---- what is trained -----------------------------------------------------------------------------------------------


def count(family: Family, kind: AdapterKind, site: str) -> int:
    """Of d = 16 (with Llama, values of two heads of four), f = 24, b = 4."""
    d, f, b = 16, 24, 4
    read = f if site == "recommendation_adapter" else d
    scaled = read if read == f or family != "llama" else d // 2
    return {"bottleneck": 2 * d * b + b + d, "lora": b * (read + d), "ia3": scaled, "none": 0}[kind]


@every_family
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_trained_weights_are_as_many_as_the_formulas_say(family: Family, kinds: Three) -> None:
    model = fresh(family, at_sites(kinds))
    for layer in model.layers:
        expected = {site: count(family, kind, site) for site, kind in zip(SITES, kinds, strict=True)}
        found = dict.fromkeys(SITES, 0)
        for name, parameter in layer.named_parameters():
            if not name.startswith("gate."):
                found[name.split(".")[0]] += parameter.numel()
        assert found == expected


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("site", SITES)
def test_each_site_learns_alone(kind: AdapterKind, site: str) -> None:
    """Some steps on one batch, of nothing but this site's weights, lower its loss."""
    model = fresh("llama", everywhere("none", **{site: kind}))
    config, task = tiny_config(everywhere("none", **{site: kind})), task_of("llama")
    batch = collate(next(iter(task.sampler(config, 0).epoch(1))), task.layout(model.config))
    own = [parameter for name, parameter in model.named_parameters() if f".{site}." in name]
    assert own
    optimizer = torch.optim.AdamW(own, lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = weighted_loss(model(batch), batch.counts, config.training)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-3


# ---- how it is computed --------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("bit", [0, 1])
def test_folded_into_the_feed_forward_it_scores_the_same(family: Family, kind: AdapterKind, bit: int) -> None:
    case = case_of(family, f"00{bit}-11{bit}", everywhere(kind))
    model, rows = fast_model(case), layout_of(case).histories([[1, 2, 8], [3]], [0, -1], read_newest=1)
    with torch.no_grad():
        unfolded, folded = model.train().scores(rows), model.eval().scores(rows)
    assert (unfolded - folded).abs().max().item() < SAME
    for layer in model.layers:
        assert isinstance(layer, DamoeLayer)
        assert (layer._folded is not None) == (kind != "none")


@pytest.mark.parametrize("kinds", [("lora", "ia3", "lora"), ("ia3", "none", "ia3"), ("none", "bottleneck", "none")])
def test_traced_or_computed_again_it_is_the_same(kinds: Three) -> None:
    case = case_of("llama", "010-101", at_sites(kinds))
    model = fast_model(case)
    expected = fast_losses(model, case)["total"]
    wanted = gradients(expected, dict(model.named_parameters()))
    thrifty = fast_model(case_of("llama", "010-101", at_sites(kinds), activation_checkpointing=True))
    model.compile_layers(backend="aot_eager")
    for other in (model, thrifty):
        total = fast_losses(other, case)["total"]
        assert abs(total - expected).item() < SAME
        for name, value in gradients(total, dict(other.named_parameters())).items():
            assert (value - wanted[name]).abs().max().item() < SAME, name


@pytest.mark.parametrize("kinds", [("lora", "ia3", "lora"), ("ia3", "none", "ia3")])
def test_bfloat16_is_close(kinds: Three) -> None:
    exact = case_of("llama", "010-101", at_sites(kinds))
    model = fast_model(exact)
    expected = fast_losses(model, exact)["total"]
    wanted = gradients(expected, dict(model.named_parameters()))
    case = case_of("llama", "010-101", at_sites(kinds), precision="bfloat16")
    case.backbone.float()
    model = fast_model(case).float()
    total = fast_losses(model, case)["total"]
    assert total.item() == pytest.approx(expected.item(), rel=0.02)
    for name, value in gradients(total, dict(model.named_parameters())).items():
        if wanted[name].abs().max() > 1e-6:
            assert cosine_similarity(value.double().flatten(), wanted[name].flatten(), dim=0) > 0.95, name
