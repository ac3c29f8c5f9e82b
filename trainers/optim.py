"""AdamW with warm-up and cosine decay (paper, 3.1.4)."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainers.config import TrainingConfig
from trainers.model.mixrec import MixRec


def build_optimizer(model: MixRec, config: TrainingConfig) -> torch.optim.AdamW:
    """Groups of one rate and one weight decay: M_cf has its own rate (ruling 17) and W_item may have one; biases
    but M_cf's, (IA)3's scales and special tokens have no decay (ruling 8). What is frozen is in none."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        peak, decay = config.learning_rate, config.weight_decay
        if name.startswith("collaborative."):
            peak = config.collaborative_learning_rate
        else:
            if name.startswith("item_projection."):
                peak = config.projection_learning_rate or peak
            if parameter.ndim == 1 or name == "special_tokens":
                decay = 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    # Fused: one pass over weights, gradients and moments, on a CPU as on a GPU.
    return torch.optim.AdamW(
        [{"params": parameters, "peak": peak, "weight_decay": decay} for (peak, decay), parameters in groups.items()],
        fused=True,
    )


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the peak rate at `step` of `total` (from 0): linear over the first `warmup` share, then a half cosine
    that reaches zero just after the last step."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def set_rates(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int, total: int) -> None:
    """Set every group's rate for `step`. A function of the step alone, so a resumed training needs no extra state."""
    factor = warmup_cosine(step, total, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
