"""The training of a study's trial: one of its variants, trained on all users and tested once at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from trainers.device import rank_and_workers, wait_for_all
from trainers.epochs import BEST, LAST
from trainers.metrics import summarise
from trainers.ranks import Setting, UserRanks


class VariantTraining(Protocol):
    """A `Training` whose best epoch can be tested."""

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        """See `Training`."""

    def test(self, trial: TrialTask) -> tuple[UserRanks, ...]:
        """Test ranks of every user under `TEST_SETTINGS`, by the weights that a finished training left in the trial's
        folder."""


@dataclass(frozen=True)
class StudyTraining:
    """A `Training` that leaves the test ranks of every user in the trial's folder, and of MixRec no weights.

    The checkpoints of a whole grid would fill a disk and nobody serves them: `promote` trains what is to be served.
    """

    variants: tuple[tuple[str, VariantTraining], ...]

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        training = dict(self.variants)[trial.variant]
        score = training(trial, on_epoch)
        if score is None:
            return None
        tables = training.test(trial)
        metrics: dict[str, float] = {}
        for ranks in tables:
            metrics |= summarise(ranks).named(ranks.setting)
        if rank_and_workers()[0] == 0:
            for ranks in tables:
                ranks.write(trial.folder / ranks.setting.file)
        drop_weights(trial.folder)
        return TrialScore(score.mrr, score.standard_error, metrics)


def drop_weights(folder: Path) -> None:
    """Remove the checkpoints of a training that has ended, once every worker has done with them."""
    wait_for_all()
    if rank_and_workers()[0] == 0:
        for weights in (LAST, BEST):
            (folder / weights).unlink(missing_ok=True)


def read_test_ranks(folder: Path, *, exclude_seen: bool) -> UserRanks:
    """What a finished trial left in its `folder`. Raises UserError where it did not."""
    return UserRanks.read(folder / Setting("test", exclude_seen).file)
