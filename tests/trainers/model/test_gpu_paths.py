"""What only a GPU runs, as far as a CPU can prove it: the indices given to its attention, and the traced layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.oracles.cases import gradients, random_case, small_model
from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.model.test_mixrec_equals_literal import fast_losses, fast_model
from trainers.model import varlen

SAME = 1e-12


def literal_varlen(q: Tensor, k: Tensor, v: Tensor, at_q: Tensor, at_k: Tensor, *longest: int, **how: Any) -> Tensor:
    """Segment by segment, as the documentation of `torch.nn.attention.varlen.varlen_attn` says."""
    ends_q, ends_k = at_q.tolist(), at_k.tolist()
    assert ends_q[0] == ends_k[0] == 0
    assert (ends_q[-1], ends_k[-1]) == (len(q), len(k))
    found = []
    for number in range(len(ends_q) - 1):
        of_q, of_k = slice(*ends_q[number : number + 2]), slice(*ends_k[number : number + 2])
        assert of_q.stop - of_q.start <= longest[0]
        assert of_k.stop - of_k.start <= longest[1]
        heads = (part.transpose(0, 1)[None] for part in (q[of_q], k[of_k], v[of_k]))
        mixed = scaled_dot_product_attention(
            *heads, is_causal=how["window_size"] == (-1, 0), scale=how["scale"], enable_gqa=how.get("enable_gqa", True)
        )
        found.append(mixed[0].transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("columns", ["none", "item", "user+item"])
def test_variable_length_attention_is_given_the_right_segments(
    family: Family, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = random_case(family, "011-100", model=small_model(collaborative_columns=columns), rows=4)
    model = fast_model(case)
    expected = fast_losses(model, case)
    of_parameters = gradients(expected["total"], dict(model.named_parameters()))
    calls = []
    monkeypatch.setattr(varlen, "is_usable", lambda _: True)
    monkeypatch.setattr(varlen.varlen, "varlen_attn", lambda *a, **k: calls.append(k) or literal_varlen(*a, **k))
    losses = fast_losses(model, case)
    assert len(calls) == 2 * 3, "both branches of the first layer and the context branch of the last one, twice"
    for name, value in expected.items():
        assert abs(losses[name] - value).item() < SAME, name
    for name, value in gradients(losses["total"], dict(model.named_parameters())).items():
        assert (value - of_parameters[name]).abs().max().item() < SAME, name


def test_compiled_layers_compute_the_same() -> None:
    """Traced for real, without the code generator that a GPU would use."""
    case = random_case("llama", "010-101", model=small_model(collaborative_columns="item"))
    model = fast_model(case)
    expected = fast_losses(model, case)
    of_parameters = gradients(expected["total"], dict(model.named_parameters()))
    model.compile_layers(backend="aot_eager")
    losses = fast_losses(model, case)
    for name, value in expected.items():
        assert abs(losses[name] - value).item() < SAME, name
    for name, value in gradients(losses["total"], dict(model.named_parameters())).items():
        assert (value - of_parameters[name]).abs().max().item() < SAME, name
