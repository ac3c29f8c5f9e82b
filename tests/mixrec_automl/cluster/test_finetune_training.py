"""The real training in a process that trains one trial after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mixrec_automl.cluster import finetune_training
from mixrec_automl.cluster.attempt import run_attempt
from mixrec_automl.cluster.executor import EpochEnded, TrialCompleted
from mixrec_automl.cluster.finetune_training import FinetuneTraining
from mixrec_automl.config import with_settings
from mixrec_automl.promotion import plan_promotion
from mixrec_automl.search_config import BudgetConfig, SearchConfig
from mixrec_automl.store.records import Search, SearchState
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.cluster.trainings import task
from tests.mixrec_automl.search.trials import trial
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from tests.trainers.tiny_package import prepare_shop, shop_config
from trainers.epochs import BEST


@pytest.fixture
def training(tmp_path: Path) -> FinetuneTraining:
    prepare_shop(tmp_path, tmp_path / "shop")
    write_tiny_backbone(tmp_path / "backbone")
    tiny = shop_config(tmp_path / "backbone", epochs=3)
    config = SearchConfig(tiny.data, tiny.backbone, tiny.model, tiny.training, BudgetConfig(user_share=0.5))
    return FinetuneTraining(config, tmp_path / "shop", tmp_path / "backbones")


def test_a_later_trial_of_a_process_is_bit_for_bit_that_of_a_fresh_one(
    training: FinetuneTraining, tmp_path: Path
) -> None:
    """What trials share is loaded once, and no training leaves a mark on it."""
    run_attempt(training, task(0, tmp_path / "warm", bits="101"), lambda _: True)
    shared = training.load()

    def keep_in(scores: list[float]) -> Callable[[EpochEnded], bool]:
        return lambda event: not scores.append(event.metrics["validation_mrr"])

    epochs: list[float] = []
    warm = run_attempt(training, task(1, tmp_path / "warm", bits="010"), keep_in(epochs))
    assert training.load() is shared

    finetune_training._loaded.clear()
    again: list[float] = []
    fresh = run_attempt(training, task(1, tmp_path / "fresh", bits="010"), keep_in(again))
    assert training.load() is not shared
    assert isinstance(warm, TrialCompleted)
    assert warm == fresh
    assert len(epochs) == 3
    assert epochs == again
    first, second = (load_file(tmp_path / kind / "1" / BEST) for kind in ("warm", "fresh"))
    assert first.keys() == second.keys()
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


SETTINGS = {"model.bottleneck": 2, "training.learning_rate": 3e-3, "model.context_expert": "ia3"}


def test_the_settings_of_a_design_are_those_of_its_training(training: FinetuneTraining, tmp_path: Path) -> None:
    design = Design.of(Architecture.parse("101"), SETTINGS)
    searched = run_attempt(training, replace(task(0, tmp_path / "searched"), design=design), lambda _: True)
    shared = training.load()
    written = replace(training, config=with_settings(training.config, SETTINGS, "test"))
    by_file = run_attempt(written, task(0, tmp_path / "written", bits="101"), lambda _: True)
    other = run_attempt(training, task(0, tmp_path / "other", bits="101"), lambda _: True)
    assert training.load() is shared, "what trials share hangs on no setting"
    assert isinstance(searched, TrialCompleted)
    assert searched == by_file != other
    first, second = (load_file(tmp_path / kind / "0" / BEST) for kind in ("searched", "written"))
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


def test_the_settings_of_a_winner_are_those_of_its_promotion(training: FinetuneTraining) -> None:
    now = datetime.now(UTC)
    search = Search("s", SearchState.COMPLETED, training.config.as_dict(), "abc", {}, now, now)
    data = training.load().data
    winner = trial(0, Design.of(Architecture.parse("101"), SETTINGS), 0.5)
    plan = plan_promotion(search, training.config, winner, data, None)
    model, rates = plan.config.finetune.model, plan.config.finetune.training
    assert (model.bottleneck, model.context_expert, rates.learning_rate) == (2, "ia3", 3e-3)
    assert plan.config.search.user_share == 1.0
    others = [
        trial(0, Design.of(Architecture.parse("101"), {**SETTINGS, "model.bottleneck": 3}), 0.5),
        trial(0, "101", 0.5),
    ]
    folders = {plan_promotion(search, training.config, one, data, None).folder for one in (winner, *others)}
    assert len(folders) == 3, "each goes on with its own"
