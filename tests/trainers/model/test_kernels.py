"""Hand-written backward passes against finite differences, and values against compositions of torch's operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from trainers.model.kernels import frozen_rms_norm, put, rotate, short_attention, swiglu, take

SAME = 1e-12


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_equals(function: Callable[..., Tensor], composed: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same value, and gradients as finite differences have them."""
    assert (function(*inputs) - composed(*inputs)).abs().max().item() < SAME
    assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs])


def test_rotation() -> None:
    """Cosine and sine of each half differ here, as nothing promises that they are alike."""
    cosine, sine = draw(5, 1, 4, seed=1), draw(5, 1, 4, seed=2)

    def composed(heads: Tensor) -> Tensor:
        first, second = heads.chunk(2, dim=-1)
        return heads * cosine + torch.cat([-second, first], dim=-1) * sine

    assert_equals(lambda heads: rotate(heads, (cosine, sine)), composed, draw(5, 3, 4))
    heads = draw(5, 3, 4)
    assert rotate(heads, None) is heads


def test_rotation_keeps_the_type_of_the_heads() -> None:
    heads, cosine, sine = (draw(5, 1, 4, seed=seed).float() for seed in range(3))
    half = rotate(heads.bfloat16(), (cosine, sine))
    assert half.dtype == torch.bfloat16
    assert (half.float() - rotate(heads.bfloat16().float(), (cosine, sine))).abs().max().item() < 0.05


def test_swiglu() -> None:
    assert_equals(swiglu, lambda gate, up: silu(gate) * up, draw(4, 3), draw(4, 3, seed=1))


def test_rms_norm() -> None:
    weight = draw(6, seed=1)

    def composed(x: Tensor) -> Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-3).sqrt() * weight

    assert_equals(lambda x: frozen_rms_norm(x, weight, 1e-3), composed, draw(4, 6))


def test_take_and_put() -> None:
    some, all_of_them = torch.tensor([3, 0, 4]), torch.tensor([3, 0, 4, 1, 2])
    assert_equals(lambda x: take(x, some), lambda x: x[some], draw(5, 2, 3))
    assert_equals(lambda x: put(x, all_of_them), lambda x: x[all_of_them.argsort()], draw(5, 2, 3))
    x = draw(5, 2)
    assert take(x, None) is x
    assert put(x, None) is x
    assert put(take(x, all_of_them), all_of_them).equal(x)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("queries", "keys", "is_causal"), [(3, 3, True), (3, 3, False), (1, 4, False), (3, 5, False)])
def test_short_attention(groups: int, queries: int, keys: int, is_causal: bool) -> None:
    def composed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=0.3, enable_gqa=True).transpose(1, 2)

    assert_equals(
        lambda q, k, v: short_attention(q, k, v, scale=0.3, is_causal=is_causal),
        composed,
        draw(2, queries, 4, 5),
        draw(2, keys, groups, 5, seed=1),
        draw(2, keys, groups, 5, seed=2),
    )
