"""One training of one architecture: the same in a test, under torchrun and in a Ray Train worker.

Random draws are counter-based (sampler) and the learning rate is a function of the step, so the state of a training
is its weights, the optimiser's moments and the number of finished epochs: resuming is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search_spaces.architecture import Architecture
from trainers.config import FinetuneConfig, TrainingConfig
from trainers.data.batches import Batch, collate
from trainers.data.sampler import share
from trainers.device import move, pick_device, rank_and_workers
from trainers.epochs import NotFiniteError, OnEpoch, ResumableTraining, load_best_weights
from trainers.evaluate import evaluate
from trainers.losses import loss_weights, weighted_loss
from trainers.model.mixrec import MixRec
from trainers.optim import build_optimizer, set_rates
from trainers.ranks import Setting, UserRanks
from trainers.reports import FinetuneResult
from trainers.task import TrainingTask, build_model


def finetune(
    config: FinetuneConfig,
    architecture: Architecture,
    task: TrainingTask,
    *,
    seed: int,
    folder: Path,
    on_epoch: OnEpoch,
    recorded: int | None = None,
    on_validation: Callable[[UserRanks], None] = lambda _: None,
) -> FinetuneResult:
    """Train `architecture` and keep the weights of its best validation epoch in `folder`.

    Resumes after the last finished epoch if `folder` holds an unfinished training of the same kind. Where
    torch.distributed is initialised, the workers share each global batch and every worker must call this.

    Args:
        seed: of initial weights and of all draws.
        on_epoch: called on rank 0 after each epoch; False stops the training.
        recorded: as `ResumableTraining.run`.
        on_validation: given the ranks of every user's validation item after each epoch, before `on_epoch`.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
        ValueError: `folder` holds a training of another design, seed or configuration.
    """
    device = pick_device()
    model = build_model(config, architecture, task, seed).to(device)
    if device.type == "cuda":
        model.compile_layers()
    return train(
        model,
        str(architecture),
        config,
        task,
        seed=seed,
        folder=folder,
        on_epoch=on_epoch,
        recorded=recorded,
        on_validation=on_validation,
    )


def train(
    model: MixRec,
    what: str,
    config: FinetuneConfig,
    task: TrainingTask,
    *,
    seed: int,
    folder: Path,
    on_epoch: OnEpoch,
    recorded: int | None = None,
    on_validation: Callable[[UserRanks], None] = lambda _: None,
    prepare: Callable[[int | None], None] = lambda _: None,
) -> FinetuneResult:
    """`finetune` of a model that is there: fresh from `build_model` with `seed`, and on its device.

    Args:
        what: is trained; a training is resumed only as what it was.
        prepare: called by every worker before each step, with its number from 0, and with None before each validation.
    """
    rank, workers = rank_and_workers()
    device = pick_device()
    training = config.training
    task.backbone.to(device)
    optimizer = build_optimizer(model, training)
    sampler = task.sampler(config, seed)
    layout = task.layout(config.model)
    steps = training.epochs * sampler.steps_per_epoch

    identity = {"architecture": what, "seed": seed, "config": asdict(config), "task": task.fingerprint}
    resumable = ResumableTraining(model, optimizer, identity, folder, what="design")
    wrapped: nn.Module = DistributedDataParallel(model) if workers > 1 else model

    def train_epoch(epoch: int) -> tuple[dict[str, float], int]:
        batches = (collate(share(step, rank, workers), layout) for step in sampler.epoch(epoch))
        first_step = (epoch - 1) * sampler.steps_per_epoch
        return _train_epoch(wrapped, optimizer, batches, training, first_step, steps, device, prepare)

    def validate() -> UserRanks:
        prepare(None)
        (ranks,) = evaluate(model, layout, task.data, [Setting("validation")], config.data.history)
        on_validation(ranks)
        return ranks

    return resumable.run(training.epochs, train_epoch, validate, on_epoch, recorded=recorded)


def load_best(
    config: FinetuneConfig, architecture: Architecture, task: TrainingTask, *, seed: int, folder: Path
) -> MixRec:
    """The model of the best validation epoch of the training in `folder`, on this process's device, ready to score."""
    model = build_model(config, architecture, task, seed)
    load_best_weights(model, folder)
    return model.to(pick_device()).eval()


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    config: TrainingConfig,
    first_step: int,
    total_steps: int,
    device: torch.device,
    prepare: Callable[[int], None],
) -> tuple[dict[str, float], int]:
    """One pass; returns the mean of each loss over the epoch's terms of all workers, and their tokens."""
    model.train()
    sums: dict[str, Tensor] = {}
    terms: dict[str, int] = {}
    tokens = 0
    for number, batch in enumerate(batches):
        counts = _add_up({**batch.counts, "tokens": batch.num_tokens}, device)
        tokens += counts.pop("tokens")
        prepare(first_step + number)
        set_rates(optimizer, config, first_step + number, total_steps)
        optimizer.zero_grad(set_to_none=True)
        parts = model(move(batch, device))
        loss = weighted_loss(parts, counts, config)
        # A worker without terms for some weights still owes the others a (zero) gradient for them.
        workers = rank_and_workers()[1]
        if workers > 1:
            touched = torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
            loss = workers * loss.to(device) + 0 * touched
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        if not torch.isfinite(norm):
            raise NotFiniteError(
                f"the gradient is not finite at step {first_step + number + 1} of {total_steps} (losses: "
                f"{ {name: part.item() for name, part in parts.items()} }): lower the learning rate"
            )
        optimizer.step()
        for name, part in parts.items():
            sums[name] = sums.get(name, torch.zeros_like(part)) + part.detach()
        for name, count in counts.items():
            terms[name] = terms.get(name, 0) + count
    names = [name for name, count in terms.items() if count]
    nothing = torch.zeros((), device=device)
    totals = torch.stack([sums.get(name, nothing).double() for name in names])
    if rank_and_workers()[1] > 1:
        dist.all_reduce(totals)
    means = {name: float(total) / terms[name] for name, total in zip(names, totals, strict=True)}
    means["total"] = sum(loss_weights(config)[name] * mean for name, mean in means.items())
    return means, tokens


def _add_up(counts: dict[str, int], device: torch.device) -> dict[str, int]:
    if rank_and_workers()[1] == 1:
        return counts
    values = torch.tensor(list(counts.values()), device=device)
    dist.all_reduce(values)
    return dict(zip(counts, values.tolist(), strict=True))
