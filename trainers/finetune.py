"""One training of one architecture: the same in a test, under torchrun and in a Ray Train worker.

Random draws are counter-based (sampler) and the learning rate is a function of the step, so the state of a training
is its weights, the optimiser's moments and the number of finished epochs: resuming is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search_spaces.architecture import Architecture
from trainers.config import FinetuneConfig, TrainingConfig
from trainers.data.batches import Batch, collate
from trainers.data.rows import Rows
from trainers.data.sampler import share
from trainers.device import move, pick_device, rank_and_workers
from trainers.epochs import NotFiniteError, OnEpoch, ResumableTraining, load_best_weights
from trainers.evaluate import evaluate
from trainers.losses import loss_weights, weighted_loss
from trainers.model.mixrec import MixRec
from trainers.optim import build_optimizer, set_rates
from trainers.ranks import Setting, UserRanks
from trainers.reports import FinetuneResult
from trainers.start import Start
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
    start: Start | None = None,
) -> FinetuneResult:
    """Train `architecture` and keep the weights of its best validation epoch in `folder`.

    Resumes after the last finished epoch if `folder` holds an unfinished training of the same kind. Where
    torch.distributed is initialised, the workers share each global batch and every worker must call this.

    Args:
        seed: of initial weights and of all draws.
        on_epoch: called on rank 0 after each epoch; False stops the training.
        recorded: as `ResumableTraining.run`.
        on_validation: given the ranks of every user's validation item after each epoch, before `on_epoch`.
        start: weights to begin with, instead of fresh ones.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
        UserError: `start` is of another model.
        ValueError: `folder` holds a training of another design, seed or configuration.
    """
    device = pick_device()
    model = build_model(config, architecture, task, seed).to(device)
    if start is not None:
        start.give_to(model)
    if device.type == "cuda":
        model.compile_layers()
    return train(
        model,
        f"{architecture}{'' if start is None else f' from {start.fingerprint}'}",
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
    # Of a sharded backbone the workers gather layers in the backward pass: nothing else may be exchanged meanwhile.
    is_sharded = task.backbone.is_sharded
    # No buffer changes in training: to send them at every step would take longer than the gradients.
    is_copied = workers > 1 and not is_sharded
    wrapped: nn.Module = DistributedDataParallel(model, broadcast_buffers=False) if is_copied else model

    def train_epoch(epoch: int) -> tuple[dict[str, float], int]:
        batches = (collate(share(step, rank, workers), layout) for step in sampler.epoch(epoch))
        first_step = (epoch - 1) * sampler.steps_per_epoch
        unread = move(layout.unread(), device) if is_sharded else None
        return _train_epoch(wrapped, optimizer, batches, training, first_step, steps, device, prepare, unread)

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
    unread: Rows | None,
) -> tuple[dict[str, float], int]:
    """One pass; returns the mean of each loss over the epoch's terms of all workers, and their tokens.

    Args:
        unread: what a worker without rows reads where the backbone is sharded; None: it is not.
    """
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
        batch = move(batch, device)
        if unread is not None:
            batch = _as_many_passes(batch, counts, unread)
        parts = model(batch)
        loss = weighted_loss(parts, counts, config)
        workers = rank_and_workers()[1]
        if workers > 1 and unread is None:
            # A worker without terms for some weights still owes the others a (zero) gradient for them.
            touched = torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
            loss = workers * loss.to(device) + 0 * touched
        loss.backward()  # type: ignore[no-untyped-call]
        if unread is not None:
            _add_gradients(model)
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


def _as_many_passes(batch: Batch, counts: dict[str, int], unread: Rows) -> Batch:
    """`batch` with a row of no effect for each pass that another worker makes and this one would not."""
    histories, alignments = batch.histories, batch.alignments
    if histories is None and counts["seq"]:
        histories = unread
    if alignments is None and (counts["align"] or counts["contrastive"]):
        alignments = unread
    return replace(batch, histories=histories, alignments=alignments)


def _add_gradients(model: nn.Module) -> None:
    """Over all workers, in one exchange, after the backward pass."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for one, gradient in zip(trained, torch.split(flat, [one.numel() for one in trained]), strict=True):
        one.grad = gradient.view_as(one)


def _add_up(counts: dict[str, int], device: torch.device) -> dict[str, int]:
    if rank_and_workers()[1] == 1:
        return counts
    values = torch.tensor(list(counts.values()), device=device)
    dist.all_reduce(values)
    return dict(zip(counts, values.tolist(), strict=True))
