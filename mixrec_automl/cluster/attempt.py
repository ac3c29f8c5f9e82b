"""One attempt at a trial, from its start to the event that tells how it ended: what every executor runs."""

from __future__ import annotations

import errno
import traceback

from mixrec_automl.cluster.executor import TrialCompleted, TrialEnded, TrialFailed, TrialLost, TrialStopped
from mixrec_automl.cluster.training import OnEpoch, Training, TrialTask, run_training

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


def run_attempt(training: Training, trial: TrialTask, on_epoch: OnEpoch) -> TrialEnded:
    """Run `training` and tell what came of it; nothing but the death of the process keeps that from the caller."""
    try:
        score = run_training(training, trial, on_epoch)
    except Exception as error:
        if is_storage_error(error):
            return TrialLost(trial.number, trial.attempt, traceback.format_exc(), is_storage=True)
        return TrialFailed(trial.number, trial.attempt, traceback.format_exc())
    if score is None:
        return TrialStopped(trial.number, trial.attempt)
    return TrialCompleted(trial.number, trial.attempt, score.mrr, score.standard_error)


def is_storage_error(error: BaseException) -> bool:
    """Whether `error`, or one that it was raised from or while handling, is the file system's fault."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, OSError) and cause.errno in STORAGE_ERRORS:
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False
