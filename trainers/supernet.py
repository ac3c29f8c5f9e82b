"""A supernet: one set of weights for every design, trained with random bits, that tells the validation MRR of a design
without training it.

A bit says what an adapter reads, so one model's weights fit every design. Each step trains them under one design, drawn
uniformly (single path one-shot: Guo et al., ECCV 2020). Designs come in pairs, one and its complement, so that each
adapter is trained equally often in both placements, as the strict fairness of FairNAS asks (Chu et al., ICCV 2021). Its
one update from the gradients of all choices is not needed: there the choices have weights of their own, here none is
left out by a step.

What designs do not share is where the item projection starts. The final states of two designs may be many times their
spread apart, and W_item reads them less their mean (`MixRec.start_projection`). So each design keeps its own mean,
spread and scale of the starting rows, from states before any training, as its own training would have them. Statistics
of batch norm are such a thing too: Guo et al. compute them anew for each path before they score it, MixPath (Chu et
al., ICCV 2023) keeps several sets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from trainers.config import FinetuneConfig
from trainers.device import move, pick_device
from trainers.epochs import OnEpoch
from trainers.evaluate import items_of, known_users, passes, windows_of
from trainers.finetune import train
from trainers.metrics import expected_gains
from trainers.model.mixrec import MixRec, Standardisation
from trainers.progress import Progress, silent
from trainers.ranks import rank_targets, targets_of, users_at_once
from trainers.task import TrainingTask, build_model, sample_rows

_DESIGNS = 2
"""Tells these draws from those of `trainers/data/sampler.py`."""


def design_of_step(space: DamoeSpace, seed: int, step: int) -> Architecture:
    """The design that step `step`, from 0, trains: uniform at even steps, then its complement."""
    bits = np.random.default_rng([seed, step // 2, _DESIGNS]).integers(2, size=space.num_bits)
    return Architecture.from_bits((bits ^ (step % 2)).tolist())


class Supernet:
    """Shared weights, and the start that each design has for itself.

    Args:
        seed: of the initial weights; those that a training of a design with this seed starts from.

    Raises:
        ValueError: the configuration is of a model without designs.
    """

    def __init__(self, config: FinetuneConfig, task: TrainingTask, seed: int) -> None:
        self._config, self._task = config, task
        device = pick_device()
        task.backbone.to(device)
        self.space = DamoeSpace(len(task.backbone.layers), config.model.replacement_frequency)
        self.model: MixRec = build_model(config, self.space.fixed_design, task, seed).to(device)
        self._standing = self.model.architecture
        # The backbone is frozen, and too large for a second one.
        self._untrained = copy.deepcopy(self.model, {id(self.model.backbone): self.model.backbone})
        self._sample = sample_rows(config, task, seed)
        self._starts: dict[Architecture, Standardisation] = {}
        self.prepare([self._standing])

    @torch.no_grad()
    def prepare(self, architectures: Iterable[Architecture]) -> None:
        """Find the starts of designs ahead of `switch`: together they cost little more than a few alone."""
        missing = {architecture for architecture in architectures if architecture not in self._starts}
        if not missing:
            return
        for architecture, states in self._untrained.encode_each(self._sample, missing):
            self._starts[architecture] = self._untrained.standardisation(states)

    def switch(self, architecture: Architecture) -> None:
        """Make `model` the one of this design: the learned weights stay, the item projection's start is exchanged."""
        self.model.architecture = architecture
        self._exchange_start(architecture)

    @torch.no_grad()
    def _exchange_start(self, architecture: Architecture) -> None:
        if architecture == self._standing or self._config.model.item_projection_input != "standardised":
            return
        self.prepare([architecture])
        new, old = self._starts[architecture], self._starts[self._standing]
        self.model.centre.copy_(new.centre)
        self.model.spread.copy_(new.spread)
        factor = float(1 / new.logit_spread - 1 / old.logit_spread)
        self.model.starting_weight.add_(self._untrained.starting_weight, alpha=factor)
        self._standing = architecture

    def reciprocal_ranks(
        self, architectures: Sequence[Architecture], *, progress: Progress = silent
    ) -> NDArray[np.float64]:
        """[A, N] expected reciprocal rank of the validation item of every user that has one, users in rising order,
        under each of A distinct designs. The mean of a row is the design's validation MRR.

        What designs share of a forward pass is computed once (`MixRec.encode_each`), and one batch of users after the
        other is scored under all designs. Computed whole by whoever calls, with several workers too.

        Raises:
            NonFiniteScoreError: a score is NaN or infinite.
        """
        model, data, config = self.model.eval(), self._task.data, self._config
        layout, step = self._task.layout(config.model), users_at_once(data)
        progress("starts of the designs")
        self.prepare(architectures)
        rows = {architecture: row for row, architecture in enumerate(architectures)}
        users, known = data.users_with("validation"), known_users(model, data)
        windows = windows_of(model, layout, data, "validation", config.data.history)
        order = np.argsort(windows.tokens[users], kind="stable")
        found = np.empty((len(architectures), len(users)))
        for first in range(0, len(order), step):
            progress(f"validation MRR of {len(rows)} designs: {first} of {len(users)} users")
            places = order[first : first + step]
            chunk = users[places]
            targets = targets_of(data, chunk, "validation").to(model.backbone.device)
            for chosen, tokens in passes(layout, items_of(data, windows[chunk]), known[chunk].tolist()):
                with torch.inference_mode():
                    for architecture, states in model.encode_each(move(tokens, model.backbone.device), rows):
                        self._exchange_start(architecture)
                        ranked = rank_targets(model.item_logits(states).float(), targets[torch.from_numpy(chosen)])
                        above, level = (column.cpu().numpy() for column in ranked)
                        found[rows[architecture], places[chosen]] = expected_gains(above, level)["mrr"]
        self.switch(self.space.fixed_design)
        return found


def train_supernet(
    config: FinetuneConfig,
    task: TrainingTask,
    *,
    seed: int,
    folder: Path,
    on_epoch: OnEpoch,
    recorded: int | None = None,
) -> Supernet:
    """Train a supernet as `finetune` trains a design, and return it with the weights after the last epoch that ran.

    An epoch is validated under the fixed design, which the reports tell and nothing hangs on: the rate falls to zero
    with the last epoch, and a best one would be that of a single design. Layers are not compiled on a GPU, since every
    pair of placements would be compiled anew.

    Args: as `finetune`.
    """
    supernet = Supernet(config, task, seed)
    steps = task.sampler(config, seed).steps_per_epoch

    def place(step: int | None) -> None:
        if step is None:
            supernet.switch(supernet.space.fixed_design)
            return
        if step % steps == 0:
            supernet.prepare(design_of_step(supernet.space, seed, later) for later in range(step, step + steps))
        supernet.switch(design_of_step(supernet.space, seed, step))

    train(
        supernet.model,
        f"supernet of {supernet.space.num_bits} bits",
        config,
        task,
        seed=seed,
        folder=folder,
        on_epoch=on_epoch,
        recorded=recorded,
        prepare=place,
    )
    return supernet
