"""The literal losses against numbers computed by hand, and their gradients against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracles.cases import gradients, random_case, small_model
from tests.oracles.literal_collaborative import collaborative_loss
from tests.oracles.literal_mixrec import align_row, contrastive_term, hidden_states, history_row, literal_losses
from tests.oracles.tiny_backbones import Family
from trainers.config import TrainingConfig
from trainers.data.step import CollaborativeDraw, ContrastiveAnchor, Step

HALVES = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 64]


def test_contrastive_term_by_hand() -> None:
    h, same, across, opposite = (torch.tensor(v).double() for v in ([2.0, 0.0], [5.0, 0.0], [0.0, 3.0], [-1.0, 0.0]))
    expected = -math.log(math.e / (math.e + 1 + 1 / math.e))
    assert float(contrastive_term(h, same, [across, opposite], 1.0)) == pytest.approx(expected, abs=1e-15)
    warmer = -math.log(math.e**2 / (math.e**2 + 1))
    assert float(contrastive_term(h, same, [across], 0.5)) == pytest.approx(warmer, abs=1e-15)


def test_sequence_and_alignment_losses_by_hand() -> None:
    case = random_case("opt", num_items=7, num_users=3, rows=2, training=TrainingConfig())
    with torch.no_grad():
        case.parameters["item_projection.weight"].zero_()
        case.parameters["item_projection.bias"].copy_(torch.tensor(HALVES, dtype=torch.float64).log() + 3.0)
    step = Step(
        users=(0, 1),
        inputs=((2, 0, 1), (3,)),
        targets=((0, 1, 2), (4,)),
        anchors=(),
        align_items=(0, 3),
        collaborative=(),
    )
    with torch.no_grad():
        losses = literal_losses(**replace(case, step=step).arguments)
    bits = math.log(2)
    # By rows the mean would be ((1 + 2 + 3) / 3 + 5) / 2.
    assert float(losses["seq"]) == pytest.approx((1 + 2 + 3 + 5) / 4 * bits)
    assert float(losses["align"]) == pytest.approx((1 + 4) / 2 * bits)
    assert float(losses["contrastive"]) == float(losses["collaborative"]) == 0.0
    assert float(losses["total"]) == pytest.approx((2.75 + 0.1 * 2.5) * bits)


def test_contrastive_anchor_reads_the_right_states() -> None:
    case = random_case("gpt2", "101-010", training=TrainingConfig(temperature=0.5))
    step = Step((0, 1), ((2, 4), (3, 5, 1)), ((4, 0), (5, 1, 6)), (ContrastiveAnchor(1, 1, 1, (0, 7)),), (0, 1, 7), ())
    model = case.literal
    h = hidden_states(model, history_row(model, 1, (3, 5, 1)))
    h = h[len(case.item_tokens[3]) + 1 + len(case.item_tokens[5])]
    positive, *negatives = (hidden_states(model, align_row(model, item))[-1] for item in (1, 0, 7))
    similarities = torch.stack([torch.cosine_similarity(h, other, dim=0) for other in (positive, *negatives)])
    expected = torch.nn.functional.cross_entropy(similarities[None] / 0.5, torch.tensor([0]))
    contrastive = literal_losses(**replace(case, step=step).arguments)["contrastive"]
    assert float(contrastive.detach()) == pytest.approx(float(expected.detach()), abs=1e-14)


def test_collaborative_losses_by_hand() -> None:
    draws = [CollaborativeDraw(0, 1, (0,))]
    factors = {
        "collaborative.user.weight": torch.tensor([[1.0, 2.0]]),
        "collaborative.item.weight": torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
        "collaborative.item_bias.weight": torch.tensor([[0.25], [-0.25]]),
    }
    # positive: .5 + 1 - .25 = 1.25; negative: 1 + .25 = 1.25
    assert float(collaborative_loss(factors, "mf", draws)) == pytest.approx(math.log(2))

    neural = {
        "collaborative.user_gmf.weight": torch.tensor([[2.0]]),
        "collaborative.item_gmf.weight": torch.tensor([[3.0], [-1.0]]),
        "collaborative.user_mlp.weight": torch.tensor([[1.0]]),
        "collaborative.item_mlp.weight": torch.tensor([[4.0], [-4.0]]),
        "collaborative.hidden.weight": torch.tensor([[1.0, 0.5]]),
        "collaborative.hidden.bias": torch.tensor([-0.5]),
        "collaborative.output.weight": torch.tensor([[0.5, 2.0]]),
        "collaborative.output.bias": torch.tensor([0.1]),
    }
    # item 1: gmf 2 * -1, hidden relu(1 - 2 - .5) = 0, logit -1 + 0 + .1
    # item 0: gmf 2 * 3, hidden relu(1 + 2 - .5) = 2.5, logit 3 + 5 + .1
    expected = (math.log1p(math.exp(0.9)) + math.log1p(math.exp(8.1))) / 2
    assert float(collaborative_loss(neural, "ncf", draws)) == pytest.approx(expected, rel=1e-5)


# ---- gradients -----------------------------------------------------------------------------------------------------

VARIANTS = [
    ("opt", "010-101", {"collaborative_columns": "user+item", "collaborative_model": "mf"}),
    ("llama", "101-011", {"collaborative_columns": "item", "activation": "gelu", "leading_bos": True}),
    ("gpt2", "000-111", {"collaborative_columns": "user"}),
    ("llama", None, {"kind": "mixrec_base"}),
]


@pytest.mark.parametrize(("family", "bits", "model"), VARIANTS)
def test_gradients_equal_finite_differences(family: Family, bits: str | None, model: dict[str, Any]) -> None:
    case = random_case(family, bits, small_model(**model), rows=2)
    names = list(case.parameters)

    def total(*values: Tensor) -> Tensor:
        arguments = case.arguments | {"parameters": dict(zip(names, values, strict=True))}
        return literal_losses(**arguments)["total"]

    assert torch.autograd.gradcheck(total, tuple(case.parameters.values()), fast_mode=True, atol=1e-6)


@pytest.mark.parametrize(("family", "bits", "model"), VARIANTS)
def test_every_parameter_has_a_gradient(family: Family, bits: str | None, model: dict[str, Any]) -> None:
    case = random_case(family, bits, small_model(**model))
    found = gradients(literal_losses(**case.arguments)["total"], case.parameters)
    assert [name for name, value in found.items() if not value.abs().max() > 1e-8] == []


def test_every_bit_changes_the_loss() -> None:
    texts = ["000-000", *("".join("1" if at == bit else "0" for at in range(6)) for bit in range(6))]
    totals = [float(literal_losses(**random_case("opt", bits).arguments)["total"].detach()) for bits in texts]
    assert min(abs(a - b) for number, a in enumerate(totals) for b in totals[:number]) > 1e-6
