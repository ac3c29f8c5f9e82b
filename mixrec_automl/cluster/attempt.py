"""One attempt at a trial, from its start to the event that tells how it ended: what every executor runs."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Mapping

from mixrec_automl.cluster.executor import EpochEnded, TrialCompleted, TrialEnded, TrialFailed, TrialLost, TrialStopped
from mixrec_automl.cluster.training import Training, TrialTask, run_training

STORAGE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EFBIG,
        errno.ESTALE,
        errno.ENOTCONN,
    }
)
"""Of a disk that is full, read-only or gone, local or mounted. A missing file or permission is a mistake instead."""


class ReportError(RuntimeError):
    """An epoch could not be reported: the way to the controller is broken, and the design has no part in it."""


def run_attempt(training: Training, trial: TrialTask, report: Callable[[EpochEnded], bool]) -> TrialEnded:
    """Run `training` and tell what came of it; nothing but the death of the process keeps that from the caller.

    Args:
        report: takes each epoch and answers whether to go on. What it raises loses the trial and does not fail it.
    """
    heard = time.monotonic()

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> bool:
        nonlocal heard
        before, heard = heard, time.monotonic()
        try:
            return report(EpochEnded(trial.number, trial.attempt, epoch, dict(metrics), heard - before))
        except Exception as error:
            raise ReportError(f"epoch {epoch} could not be reported") from error

    try:
        score = run_training(training, trial, on_epoch)
    except Exception as error:
        causes = _causes(error)
        if any(isinstance(cause, OSError) and cause.errno in STORAGE_ERRORS for cause in causes):
            return TrialLost(trial.number, trial.attempt, traceback.format_exc(), is_storage=True)
        if any(isinstance(cause, ReportError) for cause in causes):
            return TrialLost(trial.number, trial.attempt, traceback.format_exc())
        return TrialFailed(trial.number, trial.attempt, traceback.format_exc())
    if score is None:
        return TrialStopped(trial.number, trial.attempt)
    return TrialCompleted(trial.number, trial.attempt, score.mrr, score.standard_error, dict(score.metrics))


def _causes(error: BaseException) -> list[BaseException]:
    """`error` and all that it was raised from or while handling."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes
