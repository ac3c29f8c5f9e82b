"""Differentiable pieces whose backward passes are written by hand, because autograd's own cost too much memory traffic.

Matrix products run at the processor's peak; what is left of a step are passes over [M, d] tensors. Each function here
does in one or two passes, and with few saved tensors, what a composition of torch's operations does in five to ten.
Nothing is approximated: tests compare values and gradients with the compositions.

Legend: M tokens, d hidden width, f inner width of a feed-forward, H query heads, G key-value heads, e head size,
N segments, q queries and k keys of each segment.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotated(heads, cosine, sine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        # The transpose of a rotation turns back. The halves of the sine change places with those of the heads.
        return _rotated(grad, cosine, -sine.roll(sine.shape[-1] // 2, dims=-1)), None, None


def _rotated(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = heads.shape[-1] // 2
    exact = heads.to(torch.promote_types(heads.dtype, cosine.dtype))  # angles are never rounded to eight bits
    rotated = exact * cosine
    rotated[..., :half].addcmul_(exact[..., half:], sine[..., :half], value=-1)
    rotated[..., half:].addcmul_(exact[..., :half], sine[..., half:])
    return rotated.to(heads.dtype)


def rotate(heads: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
    """Apply rotary positions, cosine and sine [M, 1, e], to [M, heads, e]; the identity where there is none."""
    if rotation is None:
        return heads
    return _Rotate.apply(heads, *rotation)  # type: ignore[no-any-return, no-untyped-call]


class _SwiGlu(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate = grad * up
        torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        # silu(gate) is computed again rather than kept: it is the widest tensor of a layer.
        return of_gate, torch.nn.functional.silu(gate).mul_(grad)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, [M, f] each. Keeps gate and up alone for the backward pass."""
    return _SwiGlu.apply(gate, up)  # type: ignore[no-any-return, no-untyped-call]


class _FrozenRmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        width = x.shape[-1]
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(width)
        scale: Tensor = mean_square.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        weighted = grad * weight
        along = (weighted * x).sum(dim=-1, keepdim=True).mul_(scale.pow(3)).div_(x.shape[-1])
        return weighted.mul_(scale).addcmul_(x, along, value=-1), None, None


def frozen_rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`x / rms(x) * weight` of [M, d], without a gradient for the weight."""
    return _FrozenRmsNorm.apply(x, weight, epsilon)  # type: ignore[no-any-return, no-untyped-call]


class _Take(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.total = len(x)
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.total, *grad.shape[1:]).index_copy_(0, index, grad), None


class _Put(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return torch.empty_like(x).index_copy_(0, index, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        return grad.index_select(0, index), None


def take(x: Tensor, index: Tensor | None) -> Tensor:
    """`x[index]` along the first dimension for distinct indices, whose gradients need no adding up; None: `x`."""
    return x if index is None else _Take.apply(x, index)  # type: ignore[no-untyped-call]


def put(x: Tensor, index: Tensor | None) -> Tensor:
    """Inverse of `take` for an index that is a permutation."""
    return x if index is None else _Put.apply(x, index)  # type: ignore[no-untyped-call]


class _ShortAttention(Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, scale: float, is_causal: bool) -> Tensor:
        grouped, by_head, values_by_head = _grouped(queries, keys), _by_head(keys), _by_head(values)
        shares = _logits(grouped, by_head, scale, queries.shape[1] if is_causal else None).softmax(dim=-1)
        shares = shares.to(values.dtype)  # autocast takes the softmax to float32
        ctx.save_for_backward(queries, keys, values, shares)
        ctx.scale = scale
        return _ungrouped(torch.bmm(shares, values_by_head), queries)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, shares = ctx.saved_tensors
        grad = _grouped(grad, keys)
        of_values = torch.bmm(shares.transpose(1, 2), grad)
        of_logits = torch.bmm(grad, _by_head(values).transpose(1, 2))
        of_logits = torch._softmax_backward_data(of_logits, shares, -1, shares.dtype).mul_(ctx.scale)
        of_queries = torch.bmm(of_logits, _by_head(keys))
        of_keys = torch.bmm(of_logits.transpose(1, 2), _grouped(queries, keys))
        like = keys.transpose(1, 2)
        return (
            _ungrouped(of_queries, queries),
            of_keys.view(like.shape).transpose(1, 2),
            of_values.view(like.shape).transpose(1, 2),
            None,
            None,
        )


def short_attention(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float, is_causal: bool) -> Tensor:
    """Attention of [N, q, H, e] queries over [N, k, G, e] keys as batched matrix products -> [N, q, H, e].

    Heads that share a key are stacked as further queries, so nothing is repeated. It keeps [N, H, q, k] shares: meant
    for short segments, where it is faster than blockwise kernels; `is_causal` needs q = k.
    """
    return _ShortAttention.apply(queries, keys, values, scale, is_causal)  # type: ignore[no-any-return, no-untyped-call]


def _grouped(queries: Tensor, keys: Tensor) -> Tensor:
    """[N, q, H, e] -> [N * G, (H / G) * q, e]: the queries that read one key-value head."""
    segments, length, _, size = queries.shape
    groups = keys.shape[2]
    split = queries.reshape(segments, length, groups, -1, size).permute(0, 2, 3, 1, 4)
    return split.reshape(segments * groups, -1, size)


def _ungrouped(grouped: Tensor, queries: Tensor) -> Tensor:
    """Inverse of `_grouped`, in the shape of `queries`."""
    segments, length, heads, size = queries.shape
    groups = len(grouped) // segments
    split = grouped.view(segments, groups, heads // groups, length, size)
    return split.permute(0, 3, 1, 2, 4).reshape(queries.shape)


def _by_head(keys: Tensor) -> Tensor:
    """[N, k, G, e] -> [N * G, k, e]"""
    segments, length, groups, size = keys.shape
    return keys.transpose(1, 2).reshape(segments * groups, length, size)


def _logits(grouped: Tensor, by_head: Tensor, scale: float, causal_length: int | None) -> Tensor:
    """[N * G, (H / G) * q, k], the causal mask added where there is one."""
    keys = by_head.transpose(1, 2)
    if causal_length is None:
        return torch.baddbmm(grouped.new_empty(()), grouped, keys, beta=0, alpha=scale)
    hidden = grouped.new_full((causal_length, causal_length), -torch.inf).triu_(1)
    return torch.baddbmm(hidden.repeat(grouped.shape[1] // causal_length, 1), grouped, keys, alpha=scale)
