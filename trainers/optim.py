"""AdamW with warm-up and cosine decay (paper, 3.1.4)."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainers.config import TrainingConfig
from trainers.model.mixrec import MixRec


def build_optimizer(model: MixRec, config: TrainingConfig) -> torch.optim.AdamW:
    """Three groups: M_cf with its own rate (ruling 17); matrices with weight decay; biases and special tokens without
    (ruling 8)."""
    collaborative = [] if model.collaborative is None else list(model.collaborative.parameters())
    apart = {id(parameter) for parameter in collaborative}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if id(parameter) not in apart:
            (plain if parameter.ndim == 1 or name == "special_tokens" else decayed).append(parameter)
    groups = [
        {"params": decayed, "peak": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": plain, "peak": config.learning_rate, "weight_decay": 0.0},
        {"params": collaborative, "peak": config.collaborative_learning_rate, "weight_decay": config.weight_decay},
    ]
    # Fused: one pass over weights, gradients and moments, on a CPU as on a GPU.
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


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
