"""The real training of a trial: `trainers.finetune`, on what every worker loads for itself."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from mixrec_automl.cluster.training import TRAINABLE_PARAMETERS, OnEpoch, TrialScore, TrialTask
from mixrec_automl.config import with_settings
from mixrec_automl.search_config import SearchConfig
from trainers.device import keep_freed_memory
from trainers.evaluate import evaluate
from trainers.finetune import finetune, load_best
from trainers.progress import Progress, silent
from trainers.ranks import TEST_SETTINGS, UserRanks
from trainers.start import Start
from trainers.task import TrainingTask, load_task, trainable_parameters


@dataclass(frozen=True)
class FinetuneTraining:
    """A `Training` on Data_BO of a search (paper, 3.1.1).

    Every worker reads data and backbone from `prepared` and `backbones`, so all nodes must reach them.
    """

    config: SearchConfig
    prepared: Path
    backbones: Path
    start: Start | None = None
    """What its trainings begin with, instead of fresh weights"""

    def load(self, progress: Progress = silent) -> TrainingTask:
        """What all trials of the search share, loaded once in a process: a training changes nothing of it.

        Raises UserError for data or a backbone that cannot be used.
        """
        task = _loaded.get(self._what_is_loaded)
        if task is None:
            budget = self.config.search
            task = load_task(
                self.config.finetune,
                self.prepared,
                self.backbones,
                user_share=budget.user_share,
                user_seed=budget.seed,
                shard_backbone=self.config.cluster.shard_backbone,
                progress=progress,
            )
            _loaded.clear()  # the last one is enough
            _loaded[self._what_is_loaded] = task
        return task

    @property
    def _what_is_loaded(self) -> tuple[Hashable, ...]:
        """All that `load_task` reads of this: the variants of a study share it, but for the few that change it."""
        config, budget = self.config, self.config.search
        training = (config.training.hard_share, config.training.text_encoder)
        decided_by = (config.model.leading_bos, *training, budget.user_share, budget.seed)
        return self.prepared, self.backbones, config.data, config.backbone, config.cluster.shard_backbone, *decided_by

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        keep_freed_memory()
        own = with_settings(self.config, dict(trial.design.settings), f"the design of trial {trial.number}")
        task = self.load()
        result = finetune(
            own.finetune,
            trial.architecture,
            task,
            seed=trial.seed,
            folder=trial.folder,
            on_epoch=lambda report: on_epoch(report.epoch, report.as_metrics()),
            recorded=trial.recorded_epochs,
            start=self.start,
        )
        if not result.has_ended:
            return None
        size = {TRAINABLE_PARAMETERS: float(trainable_parameters(own.finetune, task))}
        return TrialScore(result.mrr, result.standard_error, size)

    def test(self, trial: TrialTask) -> tuple[UserRanks, ...]:
        """Test ranks of every user under `TEST_SETTINGS`, by the weights of the best epoch in the trial's folder."""
        config, task = self.config.finetune, self.load()
        model = load_best(config, trial.architecture, task, seed=trial.seed, folder=trial.folder)
        return evaluate(model, task.layout(config.model), task.data, TEST_SETTINGS, config.data.history)


_loaded: dict[tuple[Hashable, ...], TrainingTask] = {}
