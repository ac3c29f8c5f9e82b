"""The exact loss in chunks against torch's, and what the sampled ones promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from trainers.model import item_loss
from trainers.model.item_loss import gbce, item_cross_entropy, sampled_softmax

ROWS, ITEMS, WIDTH = 7, 9, 5
SAME = 1e-12


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, weight, bias and targets; one target twice."""
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((ROWS, WIDTH), (ITEMS, WIDTH), (ITEMS,))
    )
    return states, weight, bias, torch.tensor([0, 8, 3, 3, 1, 2, 7])


def full(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(states @ weight.T + bias, targets, reduction="sum")


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_chunks_change_nothing(
    case: tuple[Tensor, Tensor, Tensor, Tensor], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_loss, "ROWS_AT_LEAST", rows)
    monkeypatch.setattr(item_loss, "LOGITS_AT_ONCE", 1)
    *inputs, targets = case
    assert abs(item_cross_entropy(*inputs, targets) - full(*inputs, targets)).item() < SAME
    ours = torch.autograd.grad(3 * item_cross_entropy(*inputs, targets), inputs)
    theirs = torch.autograd.grad(3 * full(*inputs, targets), inputs)
    for left, right in zip(ours, theirs, strict=True):
        assert (left - right).abs().max().item() < SAME


def test_no_gradient_is_computed_where_none_is_wanted(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *inputs, targets = case
    with torch.no_grad():
        assert abs(item_cross_entropy(*inputs, targets) - full(*inputs, targets)).item() < SAME


def test_a_second_backward_pass_raises_instead_of_scaling_twice(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    loss = item_cross_entropy(*case)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_whole_catalogue_as_sample_gives_the_exact_softmax(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *inputs, targets = case
    everything = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(1))
    assert abs(sampled_softmax(*inputs, targets, everything) - full(*inputs, targets)).item() < SAME


def test_the_sampled_normaliser_is_right_on_average(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """exp(loss) of one row is the normaliser over the target's exp: linear in the sample, so its mean is exact."""
    states, weight, bias, targets = (part.detach()[:1] if part.shape[0] == ROWS else part.detach() for part in case)
    others = [item for item in range(ITEMS) if item != int(targets)]
    exact = full(states, weight, bias, targets).exp()
    pairs = [torch.tensor([a, b]) for a in others for b in others if a < b]
    sampled = torch.stack([sampled_softmax(states, weight, bias, targets, pair).exp() for pair in pairs])
    assert abs(sampled.mean() / exact - 1).item() < 1e-9


def test_gbce_without_calibration_is_binary_cross_entropy(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *inputs, targets = case
    sampled = torch.tensor([3, 5, 6])
    logits = inputs[0] @ inputs[1].T + inputs[2]
    expected = torch.zeros(())
    for row, target in enumerate(targets.tolist()):
        expected = expected + binary_cross_entropy_with_logits(logits[row, target], torch.ones(()).double())
        for item in sampled.tolist():
            if item != target:
                expected = expected + binary_cross_entropy_with_logits(logits[row, item], torch.zeros(()).double())
    assert abs(gbce(*inputs, targets, sampled, calibration=0.0) - expected).item() < SAME


def test_full_calibration_takes_the_positive_to_the_sampled_share(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *inputs, targets = case
    sampled = torch.tensor([4, 5])
    positives = (inputs[0] * inputs[1][targets]).sum(dim=1) + inputs[2][targets]
    of_positives = binary_cross_entropy_with_logits(positives, torch.ones_like(positives), reduction="sum")
    difference = gbce(*inputs, targets, sampled, calibration=0.0) - gbce(*inputs, targets, sampled, calibration=1.0)
    assert abs(difference - (1 - 2 / (ITEMS - 1)) * of_positives).item() < SAME
