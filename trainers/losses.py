"""The objective `L = L_seq + l1 L_align + l2 L_cl + l3 L_cf` (paper, 2.4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainers.config import TrainingConfig


def loss_weights(config: TrainingConfig) -> dict[str, float]:
    return {
        "seq": 1.0,
        "align": config.lambda_align,
        "contrastive": config.lambda_contrastive,
        "collaborative": config.lambda_collaborative,
    }


def weighted_loss(sums: Mapping[str, Tensor], counts: Mapping[str, int], config: TrainingConfig) -> Tensor:
    """Each loss as the mean over its own terms (ruling 6), weighted and added.

    Args:
        sums: this worker's sums (`MixRec.forward`), zero for a loss that nobody has a term of.
        counts: the terms of all workers together, so that their losses add up to that of the whole batch.
    """
    if not sums:  # a worker whose share of a small batch is empty
        return torch.zeros(())
    weights = loss_weights(config)
    return torch.stack([weights[name] * part / max(1, counts[name]) for name, part in sums.items()]).sum()
