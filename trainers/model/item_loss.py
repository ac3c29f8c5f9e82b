"""The loss of ranking an item among the catalogue: exact cross entropy in bounded memory, and two sampled stand-ins.

The exact one never holds [Q, I] logits: rows are taken a chunk at a time, and where a gradient is wanted it is computed
at once, while the chunk's logits are at hand. So nothing is computed twice, and memory beside the gradients themselves
is one chunk. The sampled ones are approximations for catalogues of millions of items, and never the default.

Legend: Q states, I items, S sampled items, d hidden width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

LOGITS_AT_ONCE = 1 << 23
"""Logits held at a time (32 MB in float32)."""
ROWS_AT_LEAST = 256
"""Rows taken at a time even so: each chunk reads and writes the whole gradient of the weight, [I, d], once."""


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        total = states.new_zeros(())
        of_states = torch.empty_like(states)
        of_weight = torch.empty_like(weight) if len(states) else torch.zeros_like(weight)
        of_bias = torch.zeros_like(bias)
        rows = max(ROWS_AT_LEAST, LOGITS_AT_ONCE // len(weight))
        for first in range(0, len(states), rows):
            chunk, at = states[first : first + rows], targets[first : first + rows].unsqueeze(1)
            logarithms = torch.addmm(bias, chunk, weight.T).log_softmax(dim=1)
            total -= logarithms.gather(1, at).sum()
            if wanted:
                of_logits = logarithms.exp_()
                of_logits.scatter_add_(1, at, of_logits.new_full(at.shape, -1.0))
                torch.mm(of_logits, weight, out=of_states[first : first + rows])
                of_weight.addmm_(of_logits.T, chunk, beta=float(first > 0))
                of_bias += of_logits.sum(dim=0)
        if wanted:
            ctx.save_for_backward(of_states, of_weight, of_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # In place, for the weight's gradient is as large as the weight. A second backward pass raises.
        of_states, of_weight, of_bias = (saved.mul_(grad) for saved in ctx.saved_tensors)
        return of_states, of_weight, of_bias, None


def item_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows of the cross entropy of `states @ weight.T + bias`, exact.

    Args:
        states: [Q, d]
        weight: [I, d]
        bias: [I]
        targets: [Q] item indices.
    """
    # Under autocast too: the normaliser of a whole catalogue is not to be rounded to eight bits.
    with torch.autocast(states.device.type, enabled=False):
        return _CrossEntropy.apply(states.to(weight.dtype), weight, bias, targets)  # type: ignore[no-any-return, no-untyped-call]


def sampled_softmax(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, sampled: Tensor) -> Tensor:
    """Approximates `item_cross_entropy` from a uniform sample of the catalogue, shared by all rows.

    Each row's sampled logits stand for all items but its target, so they are raised by log((I - 1) / n) with n its
    sampled items other than the target (Bengio and Senecal, 2008; for a uniform sample). The whole catalogue as sample
    gives the exact loss.

    Args:
        sampled: [S] distinct item indices.
    """
    positive, negative, hit = _sampled_logits(states, weight, bias, targets, sampled)
    others = (~hit).sum(dim=1, keepdim=True).clamp(min=1)
    raised = negative + torch.log((len(weight) - 1) / others.to(negative.dtype))
    logits = torch.cat([positive.unsqueeze(1), raised.masked_fill(hit, -math.inf)], dim=1)
    return cross_entropy(logits, torch.zeros_like(targets), reduction="sum")


def gbce(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, sampled: Tensor, *, calibration: float
) -> Tensor:
    """Generalised binary cross entropy over a uniform sample (Petrov and Macdonald, RecSys 2023), summed over rows.

    The positive's likelihood is taken to the power beta = a (t (1 - 1/a) + 1/a), with a = S / (I - 1) the share of the
    negatives that is sampled and t the calibration: 0 is plain binary cross entropy, 1 corrects the over-confidence
    that sampling brings in full.
    """
    positive, negative, hit = _sampled_logits(states, weight, bias, targets, sampled)
    share = min(1.0, len(sampled) / (len(weight) - 1))
    beta = share * (calibration * (1 - 1 / share) + 1 / share)
    of_positives = binary_cross_entropy_with_logits(positive, torch.ones_like(positive), reduction="sum")
    of_negatives = binary_cross_entropy_with_logits(negative, torch.zeros_like(negative), reduction="none")
    return beta * of_positives + of_negatives.masked_fill(hit, 0.0).sum()


def _sampled_logits(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, sampled: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [Q] of the targets and [Q, S] of the sample, and where the sample holds the row's own target."""
    positive = (states * weight[targets]).sum(dim=1) + bias[targets]
    negative = torch.addmm(bias[sampled], states, weight[sampled].T)
    return positive, negative, sampled.unsqueeze(0) == targets.unsqueeze(1)
