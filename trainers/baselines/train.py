"""Trains a baseline to a plateau of its validation MRR, and ranks by it.

As in `trainers.finetune`, draws are counter-based, so a training resumes exactly after its last finished epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.baselines.baseline import Baseline
from trainers.baselines.config import BaselineConfig
from trainers.data.sequence_data import SequenceData, Split
from trainers.device import move, pick_device
from trainers.epochs import NotFiniteError, OnEpoch, ResumableTraining, load_best_weights
from trainers.ranks import Setting, UserRanks, evaluate_scores
from trainers.reports import FinetuneResult

Build = Callable[[], Baseline[Any]]
"""Makes the untrained model; its random weights are torch's global draws."""


def train_baseline(
    config: BaselineConfig,
    build: Build,
    data: SequenceData,
    *,
    seed: int,
    folder: Path,
    on_epoch: OnEpoch,
    recorded: int | None = None,
) -> FinetuneResult:
    """Train until the plateau and keep the weights of the best validation epoch in `folder`.

    Arguments and errors are those of `finetune`; several workers train the same model, each for itself.
    """
    torch.manual_seed(_mix(seed, 0))
    model = build().to(pick_device())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    part = model.training_part(data)
    identity = {
        "model": type(model).__name__,
        "started_from": model.started_from,
        "seed": seed,
        "config": asdict(config),
        "data": data.fingerprint,
    }

    def train_epoch(epoch: int) -> tuple[dict[str, float], int]:
        torch.manual_seed(_mix(seed, epoch))
        model.begin_epoch()
        batches = part.batches(config.batch_size, np.random.default_rng([seed, epoch]))
        return {"total": _train_epoch(model, optimizer, batches, config.max_gradient_norm)}, 0

    def validate() -> UserRanks:
        model.begin_validation()
        (ranks,) = rank_users(model, data, [Setting("validation")])
        return ranks

    def end_epoch(waited: int) -> None:
        model.end_epoch(waited, lambda: load_best_weights(model, folder))

    return ResumableTraining(model, optimizer, identity, folder, what="model").run(
        config.epochs,
        train_epoch,
        validate,
        on_epoch,
        recorded=recorded,
        patience=config.patience,
        end_epoch=end_epoch,
    )


def load_baseline(build: Build, folder: Path) -> Baseline[Any]:
    """The model of the best validation epoch of the training in `folder`, ready to score."""
    model = build()
    load_best_weights(model, folder)
    return model.to(pick_device()).eval()


@torch.inference_mode()
def rank_users(model: Baseline[Any], data: SequenceData, settings: Sequence[Setting]) -> tuple[UserRanks, ...]:
    """Ranks of every user of `data`, on which the model was trained: one table for each of `settings`.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
    """
    model.eval()

    def score(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [model.score_users(data, users, split) for split in splits]

    return evaluate_scores(data, settings, score)


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _train_epoch(
    model: Baseline[Any],
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    max_gradient_norm: float,
) -> float:
    """One pass; returns the mean loss over its terms."""
    model.train()
    device = next(model.parameters()).device
    totals, terms = [], 0
    for batch in batches:
        total, count = model.loss_terms(move(batch, device))
        optimizer.zero_grad(set_to_none=True)
        (total / count).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
        if not torch.isfinite(norm):
            raise NotFiniteError(f"the gradient is not finite (loss {total.item() / count}): lower the learning rate")
        optimizer.step()
        totals.append(total.detach())
        terms += count
    return float(torch.stack(totals).sum()) / terms
