"""Trains a baseline to a plateau of its validation MRR, and ranks by it.

As in `trainers.finetune`, draws are counter-based, so a training resumes exactly after its last finished epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers import checkpoint
from trainers.baselines.baseline import Baseline
from trainers.baselines.config import BaselineConfig
from trainers.data.sequence_data import SequenceData, Split
from trainers.device import agree, move, pick_device, rank_and_workers
from trainers.finetune import BEST, LAST, NotFiniteError
from trainers.metrics import summarise
from trainers.ranks import Setting, UserRanks, evaluate_scores
from trainers.reports import EpochReport, FinetuneResult

OnEpoch = Callable[[EpochReport], bool]
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
) -> tuple[FinetuneResult, bool]:
    """Train until the plateau and keep the weights of the best validation epoch in `folder`.

    Arguments and errors are those of `finetune`; several workers train the same model, each for itself.

    Returns:
        The result, and whether the training came to its end; False where `on_epoch` stopped it.
    """
    rank, workers = rank_and_workers()
    device = pick_device()
    torch.manual_seed(_mix(seed, 0))
    model = build().to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    identity = {"model": type(model).__name__, "seed": seed, "config": asdict(config), "data": data.fingerprint}
    state: dict[str, Any] = {"identity": identity, "epoch": 0, "best_epoch": 0, "mrr": -1.0, "standard_error": 0.0}
    state["reports"] = []
    if (folder / LAST).exists():
        if checkpoint.read_header(folder / LAST)["identity"] != identity:
            raise ValueError(f"{folder} holds the training of another model, seed or configuration: remove it first")
        state |= checkpoint.load_training(folder / LAST, model, optimizer)
    going = True
    if recorded is not None:
        for finished in state["reports"][recorded:]:
            going = (rank > 0 or on_epoch(EpochReport.from_dict(finished))) and going
        going = agree(going, workers, device)
    while going and not agree(_has_ended(state, config), workers, device):
        began = time.perf_counter()
        epoch = int(state["epoch"]) + 1
        torch.manual_seed(_mix(seed, epoch))
        loss = _train_epoch(model, optimizer, config, data, np.random.default_rng([seed, epoch]))
        (ranks,) = rank_users(model, data, [Setting("validation")])
        validation = summarise(ranks)
        state |= {"epoch": epoch}
        if validation.mrr > state["mrr"]:
            state |= {"best_epoch": epoch, "mrr": validation.mrr, "standard_error": validation.mrr_error}
        if rank == 0:
            if state["best_epoch"] == epoch:
                checkpoint.write(folder / BEST, model.state_dict(), {"identity": identity, "epoch": epoch})
            seconds = time.perf_counter() - began
            report = EpochReport(epoch, config.epochs, {"total": loss}, validation, seconds, 0)
            state["reports"] = [*state["reports"], asdict(report)]
            checkpoint.save_training(folder / LAST, model, optimizer, state)
            going = on_epoch(report)
        going = agree(going, workers, device)
    result = FinetuneResult(
        int(state["best_epoch"]), float(state["mrr"]), float(state["standard_error"]), int(state["epoch"])
    )
    return result, _has_ended(state, config)


def load_baseline(build: Build, folder: Path) -> Baseline[Any]:
    """The model of the best validation epoch of the training in `folder`, ready to score."""
    model = build()
    model.load_state_dict(checkpoint.read(folder / BEST)[0])
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


def _has_ended(state: dict[str, Any], config: BaselineConfig) -> bool:
    return bool(state["epoch"] >= config.epochs or state["epoch"] - state["best_epoch"] >= config.patience)


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _train_epoch(
    model: Baseline[Any],
    optimizer: torch.optim.Optimizer,
    config: BaselineConfig,
    data: SequenceData,
    rng: np.random.Generator,
) -> float:
    """One pass; returns the mean loss over its terms."""
    model.train()
    device = next(model.parameters()).device
    totals, terms = [], 0
    for batch in model.batches(data, config.batch_size, rng):
        total, count = model.loss_terms(move(batch, device))
        optimizer.zero_grad(set_to_none=True)
        (total / count).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        if not torch.isfinite(norm):
            raise NotFiniteError(f"the gradient is not finite (loss {total.item() / count}): lower the learning rate")
        optimizer.step()
        totals.append(total.detach())
        terms += count
    return float(torch.stack(totals).sum()) / terms
