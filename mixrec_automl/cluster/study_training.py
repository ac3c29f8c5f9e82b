"""The training of a study's trial: a variant's configuration, trained on all users and tested once at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mixrec_automl.cluster.finetune_training import FinetuneTraining
from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from trainers.device import rank_and_workers
from trainers.evaluate import evaluate
from trainers.finetune import BEST, LAST, load_best
from trainers.metrics import summarise
from trainers.ranks import Setting, UserRanks

TEST_RANKS: Mapping[bool, str] = {False: "test-ranks.parquet", True: "test-ranks-unseen.parquet"}
"""In the trial's folder, by whether seen items are left out of the ranking"""


@dataclass(frozen=True)
class StudyTraining:
    """A `Training` that leaves the test ranks of every user in the trial's folder, and no weights.

    The checkpoints of a whole grid would fill a disk and nobody serves them: `promote` trains what is to be served.
    """

    variants: tuple[tuple[str, FinetuneTraining], ...]

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        training = dict(self.variants)[trial.variant]
        score = training(trial, on_epoch)
        if score is None:
            return None
        config, task = training.config.finetune, training.load()
        model = load_best(config, trial.architecture, task, seed=trial.seed, folder=trial.folder)
        settings = [Setting("test", exclude_seen) for exclude_seen in TEST_RANKS]
        tables = evaluate(model, task.layout(config.model), task.data, settings, config.data.history)
        metrics: dict[str, float] = {}
        for ranks in tables:
            prefix = "test_unseen" if ranks.exclude_seen else "test"
            metrics |= {f"{prefix}_{name}": float(value) for name, value in asdict(summarise(ranks)).items()}
        if rank_and_workers()[0] == 0:
            for ranks in tables:
                ranks.write(trial.folder / TEST_RANKS[ranks.exclude_seen])
            for weights in (LAST, BEST):
                (trial.folder / weights).unlink(missing_ok=True)
        return TrialScore(score.mrr, score.standard_error, metrics)


def read_test_ranks(folder: Path, *, exclude_seen: bool) -> UserRanks:
    """What a finished trial left in its `folder`. Raises UserError where it did not."""
    return UserRanks.read(folder / TEST_RANKS[exclude_seen])
