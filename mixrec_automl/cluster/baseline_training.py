"""The training of a baseline, on the users of a search."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.search_config import SearchConfig
from trainers.baselines.baseline import Baseline
from trainers.baselines.build import build_baseline
from trainers.baselines.config import BaselineConfig, BaselineName
from trainers.baselines.package import write_baseline_package
from trainers.baselines.text_body import text_body
from trainers.baselines.train import load_baseline, rank_users, train_baseline
from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import read_manifest
from trainers.data.users import open_users
from trainers.device import rank_and_workers
from trainers.model.sentence_encoder import sentence_vectors
from trainers.ranks import TEST_SETTINGS, UserRanks

PACKAGE = "package"


@dataclass(frozen=True)
class BaselineTraining:
    """A `VariantTraining` of a model of Table 2 that is not ours; the trial's architecture is not read."""

    config: SearchConfig
    name: BaselineName
    prepared: Path
    encoders: Path
    """Folder of backbone weights; text encoders lie beside them"""

    @property
    def settings(self) -> BaselineConfig:
        return self.config.baselines.of(self.name)

    def data(self) -> SequenceData:
        """The users of the search, over the whole catalogue. Raises UserError for data that cannot be used."""
        return open_users(self.prepared, self.config.search.user_share, self.config.search.seed)

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        data = self.data()
        result = train_baseline(
            self.settings,
            lambda: self.build(data),
            data,
            seed=trial.seed,
            folder=trial.folder,
            on_epoch=lambda report: on_epoch(report.epoch, report.as_metrics()),
            recorded=trial.recorded_epochs,
        )
        return TrialScore(result.mrr, result.standard_error) if result.has_ended else None

    def test(self, trial: TrialTask) -> tuple[UserRanks, ...]:
        """And leave a package in the trial's folder: the model is small."""
        data = self.data()
        model = load_baseline(lambda: self.build(data), trial.folder)
        package = trial.folder / PACKAGE
        if rank_and_workers()[0] == 0:
            shutil.rmtree(package, ignore_errors=True)  # of an attempt that died after it
            settings = self.config.baselines
            write_baseline_package(package, self.name, settings, model, data.catalogue, data.fingerprint)
        return rank_users(model, data, TEST_SETTINGS)

    def build(self, data: SequenceData) -> Baseline[object]:
        """The model before its training. Raises UserError as `build_baseline`."""
        return build_baseline(
            self.settings,
            data.catalogue,
            data.num_users,
            lambda encoder, reading: sentence_vectors(self.prepared, data, encoder, self.encoders, reading)[0],
            lambda asked: text_body(asked, data.catalogue, read_manifest(self.prepared).attributes, self.encoders),
        )
