"""What the benchmarks of a training step share: the setting, which steps are run, and a step as `finetune` takes it.

No benchmark by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaModel

from mixrec_automl import paths
from trainers.config import BackboneConfig, DataConfig, FinetuneConfig, TrainingConfig
from trainers.data.step import Step
from trainers.model.backbone import as_backbone
from trainers.model.mixrec import MixRec
from trainers.model.pretrained import load_pretrained
from trainers.optim import set_rates
from trainers.task import TrainingTask, load_task

LAYERS, BATCH_SIZE, SEED = 4, 16, 0
MIXED_DESIGN = "000-111-010-101"
RANKS = {"median": 0.5, "long": 0.95}
"""Which steps are run: the share of an epoch's steps with fewer tokens of histories."""

Input = TypeVar("Input")
Losses = Callable[[Input], dict[str, Tensor]]
"""From a step's input to the means of the losses and their weighted `total`."""


def setting(data: str, history: int) -> FinetuneConfig:
    """Four layers of the default backbone and batches of 16, all else by default."""
    return FinetuneConfig(
        DataConfig(data, history=history), BackboneConfig(layers=LAYERS), training=TrainingConfig(batch_size=BATCH_SIZE)
    )


def load(config: FinetuneConfig) -> TrainingTask:
    """The task of a prepared data set."""
    return load_task(config, paths.data_folder(config.data.name), paths.backbones_folder())


def with_body(config: FinetuneConfig, task: TrainingTask) -> tuple[TrainingTask, LlamaModel]:
    """The task around a backbone that is given out as well, for implementations that call transformers themselves."""
    body = load_pretrained(config.backbone.name, config.backbone.layers, paths.backbones_folder()).model
    return replace(task, backbone=as_backbone(body)), body


def steps_of_epoch(config: FinetuneConfig, task: TrainingTask) -> dict[str, Step]:
    """Steps of the first epoch by the rank of their histories' tokens (`RANKS`)."""
    lengths = task.item_tokens.lengths + 1

    def tokens(step: Step) -> int:
        return sum(int(lengths[list(items)].sum()) for items in step.inputs)

    steps = sorted(task.sampler(config, SEED).epoch(1), key=tokens)
    return {name: steps[int(rank * len(steps))] for name, rank in RANKS.items()}


def smallest(step: Step) -> Step:
    """One row, one aligned item and one draw of `step`: warms up what is set up at a process's first step."""
    return replace(
        step,
        users=step.users[:1],
        inputs=step.inputs[:1],
        targets=step.targets[:1],
        anchors=(),
        align_items=step.align_items[:1],
        collaborative=step.collaborative[:1],
        hidden_user_columns=frozenset(),
    )


def train_step(
    losses: Losses[Input],
    given: Input,
    model: MixRec,
    optimizer: torch.optim.Optimizer,
    training: TrainingConfig,
    at: tuple[int, int],
) -> tuple[dict[str, Tensor], Tensor]:
    """Forward and backward pass, clipping and AdamW, as in `trainers.finetune`.

    Args:
        at: number of the step, and of all steps: they decide the learning rate.

    Returns:
        The losses, and the norm of the gradient before clipping.
    """
    set_rates(optimizer, training, *at)
    optimizer.zero_grad(set_to_none=True)
    found = losses(given)
    found["total"].backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)
    if not torch.isfinite(norm):
        raise ArithmeticError("the gradient is not finite")
    optimizer.step()
    return found, norm
