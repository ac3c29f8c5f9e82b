"""The epochs of any training: resumed exactly, the best one by validation MRR kept, stopped when the caller says so.

Random draws are counter-based, so the state of a training is its weights, the optimiser's moments and the number of
finished epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainers import checkpoint
from trainers.device import agree, rank_and_workers
from trainers.metrics import summarise
from trainers.ranks import UserRanks
from trainers.reports import EpochReport, FinetuneResult

LAST, BEST = "last.safetensors", "best.safetensors"
OnEpoch = Callable[[EpochReport], bool]
TrainEpoch = Callable[[int], tuple[Mapping[str, float], int]]
"""Epoch, from 1 -> the mean of each loss, and the tokens that all workers trained on."""


class NotFiniteError(ArithmeticError):
    """A loss became NaN or infinite: this model with these settings cannot be trained."""


class ResumableTraining:
    """A training in `folder`, gone on with after its last finished epoch where there is one.

    Args:
        identity: what is trained, and how: all that decides on the outcome, as JSON.
        what: is trained, for the message.

    Raises:
        ValueError: `folder` holds a training of another identity.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, Any],
        folder: Path,
        *,
        what: str,
    ) -> None:
        self._model, self._optimizer, self._folder = model, optimizer, folder
        self._state: dict[str, Any] = {
            "identity": identity,
            "epoch": 0,
            "best_epoch": 0,
            "mrr": -1.0,
            "standard_error": 0.0,
            "reports": [],
        }
        if (folder / LAST).exists():
            # Before anything is loaded: another model has weights of other shapes.
            if checkpoint.read_header(folder / LAST)["identity"] != identity:
                raise ValueError(
                    f"{folder} holds the training of another {what}, seed or configuration: remove it first"
                )
            self._state |= checkpoint.load_training(folder / LAST, model, optimizer)

    def run(
        self,
        epochs: int,
        train_epoch: TrainEpoch,
        validate: Callable[[], UserRanks],
        on_epoch: OnEpoch,
        *,
        recorded: int | None,
        patience: int | None = None,
        end_epoch: Callable[[int], None] | None = None,
    ) -> FinetuneResult:
        """What is left of `epochs`, keeping the weights of the best one in `folder / BEST`.

        Where torch.distributed is initialised, every worker must call this, and rank 0 decides for all.

        Args:
            on_epoch: called on rank 0 after each epoch; False stops the training.
            recorded: how many epochs the caller knows of. A resumed training first reports those that were finished
                beyond that, as where the caller died while the training went on for a moment. None: new ones alone.
            patience: epochs without a better validation MRR after which the training has ended; None: it takes all.
            end_epoch: told, by every worker, how many epochs lie after the best one. What it does to the model is
                saved with this epoch: a resumed training does it no second time.
        """
        state, rank = self._state, rank_and_workers()[0]

        def has_ended() -> bool:
            waited = int(state["epoch"]) - int(state["best_epoch"])
            return bool(state["epoch"] >= epochs or (patience is not None and waited >= patience))

        going = True
        for finished in [] if recorded is None else state["reports"][recorded:]:
            going = (rank > 0 or on_epoch(EpochReport.from_dict(finished))) and going
        while agree(going and not has_ended()):
            began = time.perf_counter()
            epoch = int(state["epoch"]) + 1
            losses, tokens = train_epoch(epoch)
            validation = summarise(validate())
            state["epoch"] = epoch
            if validation.mrr > state["mrr"]:
                state |= {"best_epoch": epoch, "mrr": validation.mrr, "standard_error": validation.mrr_error}
            if rank == 0 and state["best_epoch"] == epoch:
                header = {"identity": state["identity"], "epoch": epoch}
                checkpoint.write(self._folder / BEST, self._model.state_dict(), header)
            if end_epoch is not None:
                end_epoch(epoch - int(state["best_epoch"]))
            if rank == 0:
                report = EpochReport(epoch, epochs, losses, validation, time.perf_counter() - began, tokens)
                state["reports"] = [*state["reports"], asdict(report)]
                checkpoint.save_training(self._folder / LAST, self._model, self._optimizer, state)
                going = on_epoch(report)
        return FinetuneResult(
            int(state["best_epoch"]),
            float(state["mrr"]),
            float(state["standard_error"]),
            int(state["epoch"]),
            has_ended=agree(has_ended()),
        )


def load_best_weights(model: nn.Module, folder: Path) -> None:
    """Give `model` the weights of the best validation epoch of the training in `folder`."""
    model.load_state_dict(checkpoint.read(folder / BEST)[0])
