"""Small trainings that keep the contract of `Training`: importable, so that Ray workers can run them."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from search_spaces.architecture import Architecture
from search_spaces.design import Design


def true_mrr(architecture: Architecture) -> float:
    """A noiseless objective: serial adapters are better, the first layer's most."""
    return 0.1 - sum(bit * 0.01 / (index + 1) for index, bit in enumerate(architecture.bits))


@dataclass(frozen=True)
class Counting:
    """Counts to `epochs`, `seconds` each, writing how far it came below the trial's folder and going on from there."""

    epochs: int = 2
    seconds: float = 0.0

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        progress = trial.folder / "epoch.txt"
        done = int(progress.read_text()) if progress.exists() else 0
        for epoch in range(done + 1, self.epochs + 1):
            time.sleep(self.seconds)
            trial.folder.mkdir(parents=True, exist_ok=True)
            progress.write_text(str(epoch))
            go_on = on_epoch(epoch, {"validation_mrr": true_mrr(trial.architecture) * epoch / self.epochs})
            if not go_on and epoch < self.epochs:
                return None
        return TrialScore(true_mrr(trial.architecture), 0.001)


@dataclass(frozen=True)
class Troubled:
    """Raises or reports NaN in the trials named; else counts."""

    raising: tuple[int, ...] = ()
    diverging: tuple[int, ...] = ()

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        if trial.number in self.raising:
            raise ArithmeticError(f"trial {trial.number} cannot be trained")
        if trial.number in self.diverging:
            on_epoch(1, {"loss_seq": float("nan")})
        return Counting()(trial, on_epoch)


@dataclass(frozen=True)
class Ordered:
    """Does what the trial's folder orders, by `order`; without an order it counts. Another attempt has no order."""

    seconds: float = 0.0

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        path = trial.folder / "order.txt"
        what = path.read_text() if path.exists() else "count"
        path.unlink(missing_ok=True)
        if what == "report process":
            on_epoch(1, {"pid": os.getpid()})
            return TrialScore(true_mrr(trial.architecture), 0.001)
        if what != "count":
            on_epoch(1, {"pid": os.getpid()})
            ORDERS[what]()
        return Counting(seconds=self.seconds)(trial, on_epoch)


def _raise() -> None:
    raise ArithmeticError("this design cannot be trained")


def _raise_full_disk() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RuntimeError("the checkpoint was not written") from error


def _hold_the_interpreter() -> None:
    pattern = "a" * 64
    re.match("(a*)*b", pattern)  # in C code, without letting go of the interpreter's lock


ORDERS: Mapping[str, Callable[[], object]] = {
    "raise": _raise,
    "raise full disk": _raise_full_disk,
    "be killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleep": lambda: time.sleep(3600),
    "hold the interpreter": _hold_the_interpreter,
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def order(trial: TrialTask, what: str) -> TrialTask:
    """Tell the next attempt at `trial` what to do."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    (trial.folder / "order.txt").write_text(what)
    return trial


@dataclass(frozen=True)
class Probing:
    """Reports what a worker finds around itself."""

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        import torch
        import torch.distributed as dist

        total = torch.ones(())
        dist.all_reduce(total)
        trial.folder.mkdir(parents=True, exist_ok=True)
        (trial.folder / f"rank-{dist.get_rank()}.txt").write_text(str(Path.cwd()))
        if dist.get_rank() == 0:
            found = {"threads": torch.get_num_threads(), "omp": float(os.environ["OMP_NUM_THREADS"])}
            on_epoch(1, {**found, "workers": float(total), "pid": os.getpid()})
        dist.barrier()
        return TrialScore(0.5, 0.01)


def task(number: int, folder: Path, *, bits: str = "000-000", attempt: int = 1) -> TrialTask:
    return TrialTask(number, attempt, Design(Architecture.parse(bits)), seed=0, folder=folder / str(number))
