"""The fast model against the literal one: every loss and every gradient, in float64 to 1e-9."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from torch import Tensor

from search_spaces.architecture import Architecture
from tests.oracles.cases import Case, gradients, random_case, small_model
from tests.oracles.literal_mixrec import literal_losses, literal_scores
from tests.oracles.tiny_backbones import FAMILIES, Family
from trainers.data.batches import Layout, collate
from trainers.data.sequence_data import ItemTokens
from trainers.losses import weighted_loss
from trainers.model.backbone import as_backbone
from trainers.model.mixrec import MixRec

TOLERANCE = 1e-9
ALL_DESIGNS = ["".join(map(str, bits)) for bits in itertools.product((0, 1), repeat=6)]


def fast_model(case: Case) -> MixRec:
    model = MixRec(
        as_backbone(case.backbone),
        case.model,
        case.architecture or Architecture.parse("000"),
        num_users=len(case.known_users),
        num_items=len(case.item_tokens),
        training=case.training,
    ).double()
    own = dict(model.named_parameters())
    used = {name: value for name, value in case.parameters.items() if name in own}
    buffers = dict(model.named_buffers())
    buffers |= {name: value for name, value in case.parameters.items() if name in buffers}
    left_out = set(case.parameters) - set(own) - set(buffers)
    assert all(name.startswith("collaborative.") for name in left_out), left_out
    assert set(used) == set(own), set(own) - set(used)
    model.load_state_dict({name: value.detach() for name, value in (used | buffers).items()})
    return model


def layout_of(case: Case) -> Layout:
    lengths = [len(tokens) for tokens in case.item_tokens]
    tokens = ItemTokens(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(case.item_tokens).astype(np.int32),
    )
    return Layout.of(case.model, tokens, case.prompt_tokens, case.bos_token, np.array(case.known_items))


def fast_losses(model: MixRec, case: Case) -> dict[str, Tensor]:
    batch = collate(case.step, layout_of(case))
    sums = model(batch)
    means = {name: value / batch.counts[name] for name, value in sums.items()}
    return {**means, "total": weighted_loss(sums, batch.counts, case.training)}


def assert_equal_to_literal(case: Case) -> None:
    model = fast_model(case)
    fast = fast_losses(model, case)
    literal = literal_losses(**case.arguments)
    if "collaborative" not in fast:  # nothing reads M_cf, or it is frozen: the product does not train it
        literal["total"] = literal["total"] - case.training.lambda_collaborative * literal.pop("collaborative")
    assert set(fast) == set(literal)
    for name, value in fast.items():
        assert abs(value.item() - literal[name].item()) < TOLERANCE, name

    own = {name: value for name, value in model.named_parameters() if value.requires_grad}
    expected = gradients(literal["total"], {name: case.parameters[name] for name in own})
    got = gradients(fast["total"], dict(own))
    for name in own:
        difference = (got[name] - expected[name]).abs().max().item()
        assert difference < TOLERANCE, f"gradient of {name} differs by {difference}"
    special = expected["special_tokens"].abs().amax(dim=1)
    assert (special > 0).all(), "the case must exercise both special tokens"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", ALL_DESIGNS)
def test_every_design_of_two_layers(family: Family, bits: str) -> None:
    assert_equal_to_literal(random_case(family, bits, model=small_model(collaborative_columns="user+item")))


OPTIONS = {
    **{f"columns-{c}": {"collaborative_columns": c} for c in ("none", "item", "user", "user+item")},
    "matrix-factorisation": {"collaborative_model": "mf"},
    "gelu": {"activation": "gelu"},
    "bos": {"leading_bos": True, "collaborative_columns": "user+item"},
    "align-without-column": {"align_sees_item_column": False},
    "detached": {"collaborative_training": "detached", "collaborative_columns": "user+item"},
    "frozen": {"collaborative_training": "frozen"},
    "causal": {"second_mask": "causal"},
    **{
        f"causal-and-{c}": {"second_mask": "causal+columns", "collaborative_columns": c, "leading_bos": True}
        for c in ("none", "item", "user+item")
    },
    "text-and-free": {"item_projection_form": "text+free"},
    "llmrec": {"kind": "llmrec"},
    "base": {"kind": "mixrec_base"},
    "base-bos": {"kind": "mixrec_base", "leading_bos": True},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_option(family: Family, option: str, seed: int) -> None:
    case = random_case(family, "011010", model=small_model(**OPTIONS[option]), rows=4, seed=seed)
    assert_equal_to_literal(case)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("frequency", "bits"), [(2, "010"), (3, "101"), (4, "110")])
def test_replacement_frequency(family: Family, frequency: int, bits: str) -> None:
    """r = 3 leaves the last of four layers frozen; r = 2 and 4 replace it."""
    bits = bits * (4 // frequency)
    case = random_case(family, bits, model=small_model(replacement_frequency=frequency), layers=4)
    assert_equal_to_literal(case)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("columns", ["none", "item", "user", "user+item"])
@pytest.mark.parametrize("mask", ["context", "causal+columns"])
def test_scores_of_known_and_unknown_users(family: Family, columns: str, mask: str) -> None:
    changes = {"collaborative_columns": columns, "second_mask": mask, "leading_bos": True}
    case = random_case(family, "110011", model=small_model(**changes))
    model, layout = fast_model(case), layout_of(case)
    histories, users = [[1, 2, 8, 1], [3], [8, 0]], [0, -1, 2]
    fast = model.scores(layout.histories(histories, users, read_newest=1))
    for row, (user, history) in enumerate(zip(users, histories, strict=True)):
        literal = literal_scores(**case.scoring(None if user < 0 else user, history))
        assert (fast[row] - literal).abs().max().item() < TOLERANCE


def test_single_precision_agrees() -> None:
    case = random_case("llama", "011010")
    exact = fast_losses(fast_model(case), case)
    model = fast_model(case)
    case.backbone.float()
    single = fast_losses(model.float(), case)
    for name, value in exact.items():
        assert float(single[name]) == pytest.approx(float(value), rel=1e-5), name
