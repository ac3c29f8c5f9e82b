"""A home with a recorded search, and full trainings in it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mixrec_automl import full_run, paths
from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.full_run import Outcome
from mixrec_automl.full_training import (
    FullTraining,
)
from mixrec_automl.promote import run_promotion
from mixrec_automl.promotion import plan_promotion
from mixrec_automl.registry import ModelVersion, Registry
from mixrec_automl.search_config import BudgetConfig, PromotionConfig, SearchConfig
from mixrec_automl.store.records import SearchState
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from tests.mixrec_automl.store.writing import started, writer_of
from tests.trainers.tiny_package import shop_config
from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import open_prepared

from mlflow.entities import Run  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip

NAME = "mixrec-shop"
EPOCHS = 10


def config_of(home: Path, **training: Any) -> SearchConfig:
    tiny = shop_config(home / "backbone", **training)
    parts = (tiny.data, tiny.backbone, tiny.model, tiny.training)
    budget, promoted = BudgetConfig(trials=2, user_share=0.5), PromotionConfig(epochs=EPOCHS)
    return SearchConfig(*parts, search=budget, promotion=promoted)


def untrained(home: Path) -> SearchConfig:
    still = config_of(home, learning_rate=1e-9, collaborative_learning_rate=1e-9)
    return replace(still, promotion=PromotionConfig(epochs=1))


class World:
    """A recorded search with two trials, and promotions of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = config_of(home)
        self.repository = Repository.open()
        self.search = self.repository.create_search("s", self.config.as_dict(), "fingerprint")
        writer = writer_of(self.repository, "s")
        self.trials = []
        for number, (bits, mrr) in enumerate((("000", 0.4), ("010", 0.5))):
            started(writer, number, design=Architecture.parse(bits), seed=0)
            self.trials.append(writer.complete_trial(number, 1, mrr, 0.01))
        writer.set_state(SearchState.COMPLETED)
        self.epochs: list[int] = []

    @property
    def data(self) -> SequenceData:
        return open_prepared(paths.data_folder("shop"))

    def plan(self, trial: int = 1, config: SearchConfig | None = None) -> FullTraining:
        return plan_promotion(self.search, config or self.config, self.trials[trial], self.data, None)

    def promote(self, trial: int = 1, *, force: bool = False) -> Outcome | None:
        self.epochs.clear()
        console = Console(file=io.StringIO())
        return run_promotion(
            self.plan(trial), self.search, self.trials[trial], self.data, self.repository, console, force=force
        )

    @property
    def registry(self) -> Registry:
        return Registry(paths.tracking_uri())

    def states(self) -> list[SearchState]:
        return [one.state for one in self.repository.promotions("s")]

    def mlflow_runs(self) -> list[Run]:
        """Of promotions, oldest first."""
        client = MlflowClient(tracking_uri=paths.tracking_uri())
        experiment = client.get_experiment_by_name("s")
        runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
        return [run for run in runs if "mixrec.promotion" in run.data.tags]


def on_each_epoch(monkeypatch: pytest.MonkeyPatch, then: Callable[[EpochEnded], None]) -> None:
    @contextlib.contextmanager
    def bar(*_: object) -> Iterator[Callable[[EpochEnded], None]]:
        yield then

    monkeypatch.setattr(full_run, "epochs_bar", bar)


def weak_and_strong(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelVersion, ModelVersion]:
    """Two versions: the first one's training was hardly one."""
    with monkeypatch.context() as patched:
        patched.setattr(world, "config", untrained(world.home))
        weak = world.promote(0)
    strong = world.promote()
    assert weak is not None
    assert strong is not None
    return weak.version, strong.version
