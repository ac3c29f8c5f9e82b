"""Promotion with all real parts but Ray: the training runs in this process (the end-to-end test has Ray)."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mixrec_automl import full_run, paths
from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.cluster.finetune_training import FinetuneTraining
from mixrec_automl.full_training import (
    Evaluation,
    FullTrainingError,
    evaluate_package,
    flat_metrics,
)
from mixrec_automl.promotion import plan_promotion
from mixrec_automl.registry import ModelVersion
from mixrec_automl.search_config import ClusterConfig, PromotionConfig
from mixrec_automl.store.records import SearchState
from tests.mixrec_automl.champions import crown
from tests.mixrec_automl.full_training.world import EPOCHS, NAME, World, config_of, on_each_epoch, untrained
from tests.trainers.tiny_package import NUM_USERS, prepare_shop
from trainers.epochs import BEST
from trainers.errors import UserError
from trainers.finetune import finetune
from trainers.package import read_package
from trainers.ranks import UserRanks

from mlflow.tracking import MlflowClient  # isort: skip


def test_a_promotion_trains_on_all_users_tests_registers_and_becomes_champion(world: World) -> None:
    outcome = world.promote()
    assert outcome is not None
    assert world.epochs == list(range(1, EPOCHS + 1))
    with_seen, without_seen = outcome.evaluations
    assert (with_seen.exclude_seen, without_seen.exclude_seen) == (False, True)
    assert with_seen.metrics.users == NUM_USERS, "all users, though the search had half of them"
    assert outcome.decision.moves
    assert outcome.decision.rival == "popularity"
    assert outcome.version == ModelVersion(NAME, "1", world.data.fingerprint)
    assert world.registry.champion(NAME) == outcome.version
    assert outcome.example_title == "Thing 0"

    (recorded,) = world.repository.promotions("s")
    assert (recorded.state, recorded.trial, recorded.model_version) == (SearchState.COMPLETED, 1, f"{NAME}/1")
    assert recorded.metrics == flat_metrics(outcome.evaluations)
    check_flat(recorded.metrics, outcome.evaluations)

    (run,) = world.mlflow_runs()
    assert run.info.status == "FINISHED"
    told = {"architecture": "010", "trial": "1", "seed": "0", "began_with": "fresh weights"}
    assert run.data.params == told
    assert run.data.metrics["test_mrr"] == pytest.approx(with_seen.metrics.mrr)
    assert run.data.metrics["test_unseen_mrr"] == pytest.approx(without_seen.metrics.mrr)
    client = MlflowClient(tracking_uri=paths.tracking_uri())
    curve = client.get_metric_history(run.info.run_id, "validation_mrr")
    assert sorted(point.step for point in curve) == world.epochs
    kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert kept >= {"test-ranks.parquet", "test-ranks-unseen.parquet"}
    tags = client.get_model_version(NAME, "1").tags
    assert tags["test_mrr"] == f"{with_seen.metrics.mrr:.4f}"
    assert tags["mixrec.gate"] == outcome.decision.reason


def check_flat(flat: Mapping[str, float], evaluations: Sequence[Evaluation]) -> None:
    """Every number under its name."""
    for evaluation, prefix in zip(evaluations, ("test", "test_unseen"), strict=True):
        assert flat[f"{prefix}_mrr"] == evaluation.metrics.mrr
        assert flat[f"{prefix}_recall_at_10_error"] == evaluation.metrics.recall_at_10_error
        for floor in ("popularity", "repeat-last", "item-knn"):
            assert flat[f"{prefix}_{floor.replace('-', '_')}_mrr"] == evaluation.floors[floor].mrr
        mean = flat[f"{prefix}_mrr"] - flat[f"{prefix}_popularity_mrr"]
        assert flat[f"{prefix}_mrr_minus_popularity"] == pytest.approx(mean)
        assert flat[f"{prefix}_mrr_minus_popularity_low"] <= mean <= flat[f"{prefix}_mrr_minus_popularity_high"]
    assert len(flat) == 2 * (7 + 4 + 3)


def test_the_registered_model_gives_the_test_ranks_again(world: World, tmp_path: Path) -> None:
    outcome = world.promote()
    assert outcome is not None
    again = evaluate_package(read_package(world.registry.fetch(world.registry.find(NAME), tmp_path)), world.data)
    files = ("test-ranks.parquet", "test-ranks-unseen.parquet")
    for first, second, file in zip(outcome.evaluations, again, files, strict=True):
        stored = UserRanks.read(world.plan().folder / file)
        assert first.ranks.rank.tolist() == second.ranks.rank.tolist() == stored.rank.tolist()
        assert first.ranks.user.tolist() == list(world.data.user_ids)
        assert first.metrics == second.metrics


def test_the_same_promotion_again_trains_nothing_and_meets_the_gate(world: World) -> None:
    first, second = world.promote(), world.promote()
    assert first is not None
    assert second is not None
    assert world.epochs == [], "the training was finished already"
    assert not second.decision.moves
    assert second.decision.reason.startswith(f"not surely better than {NAME} version 1: test MRR +0.0000")
    assert second.version == ModelVersion(NAME, "2", world.data.fingerprint)
    assert world.registry.champion(NAME) == first.version
    assert world.states() == [SearchState.COMPLETED] * 2


def test_a_better_challenger_becomes_champion(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first model stands in for a champion that was hardly trained."""
    with monkeypatch.context() as patched:
        patched.setattr(world, "config", untrained(world.home))
        weak = world.promote(0)
    assert weak is not None
    crown(world.registry, weak.version)
    strong = world.promote()
    assert strong is not None
    assert strong.decision.moves
    assert strong.decision.rival == f"{NAME} version 1"
    assert world.registry.champion(NAME) == strong.version


def test_a_champion_of_other_data_is_refused_before_anything_is_trained(world: World) -> None:
    first = world.promote()
    assert first is not None
    prepare_other(world)
    before = {path for path in world.home.rglob("*") if "runs" in path.parts}
    with pytest.raises(UserError, match=f"{NAME} version 1 was trained on data .* give --force"):
        world.promote()
    assert world.epochs == []
    assert world.states() == [SearchState.COMPLETED], "not even recorded"
    assert {path for path in world.home.rglob("*") if "runs" in path.parts} == before
    forced = world.promote(force=True)
    assert forced is not None
    assert world.epochs == list(range(1, EPOCHS + 1)), "other data are another training"
    assert forced.decision.reason == f"forced past {NAME} version 1, which was trained on other data"
    assert world.registry.champion(NAME) == forced.version


def prepare_other(world: World) -> None:
    """The data set is prepared anew, with longer sequences."""
    shutil.rmtree(paths.data_folder("shop"))
    prepare_shop(world.home, paths.data_folder("shop"), length=7)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_training_and_the_same_promotion_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sent: signal.Signals
) -> None:
    def interrupt(event: EpochEnded) -> None:
        if event.epoch == 2:
            os.kill(os.getpid(), sent)

    with monkeypatch.context() as patched:
        on_each_epoch(patched, interrupt)
        assert world.promote() is None
    assert world.states() == [SearchState.STOPPED]
    assert [run.info.status for run in world.mlflow_runs()] == ["KILLED"]
    assert world.registry.champion(NAME) is None

    outcome = world.promote()
    assert outcome is not None
    assert world.epochs[0] > 2, "finished epochs are not trained again"
    assert world.epochs[-1] == EPOCHS
    assert world.states() == [SearchState.STOPPED, SearchState.COMPLETED]

    plan = world.plan()
    training = FinetuneTraining(plan.config, paths.data_folder("shop"), paths.backbones_folder())
    finetune(
        plan.config.finetune,
        plan.design.architecture,
        training.load(),
        seed=plan.seed,
        folder=tmp_path / "whole",
        on_epoch=lambda _: True,
    )
    whole, resumed = load_file(tmp_path / "whole" / BEST), load_file(plan.folder / BEST)
    assert whole.keys() == resumed.keys()
    assert all(tensor.equal(resumed[name]) for name, tensor in whole.items()), "as if never interrupted"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_test_stops_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), sent)
        pytest.fail("it went on")

    handler = signal.getsignal(sent)
    with monkeypatch.context() as patched:
        patched.setattr(full_run, "evaluate_package", interrupted)
        assert world.promote() is None
    assert world.states() == [SearchState.STOPPED]
    assert signal.getsignal(sent) is handler
    assert world.promote() is not None
    assert world.epochs == []


def test_a_signal_in_the_last_epoch_is_not_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(event: EpochEnded) -> None:
        if event.epoch == EPOCHS:
            os.kill(os.getpid(), signal.SIGINT)

    on_each_epoch(monkeypatch, interrupt)
    assert world.promote() is None
    assert world.states() == [SearchState.STOPPED]


def test_a_training_that_raises_is_recorded_with_its_traceback(world: World) -> None:
    shutil.rmtree(world.home / "backbone")
    with pytest.raises(FullTrainingError, match="no such folder"):
        world.promote()
    (recorded,) = world.repository.promotions("s")
    assert recorded.state is SearchState.FAILED
    assert recorded.error is not None
    assert "no such folder" in recorded.error
    assert "Traceback" in recorded.error
    assert [run.info.status for run in world.mlflow_runs()] == ["FAILED"]
    assert world.registry.champion(NAME) is None


def test_a_model_below_popularity_is_registered_but_no_champion(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "config", untrained(world.home))
    outcome = world.promote()
    assert outcome is not None
    assert not outcome.decision.moves
    assert outcome.version.version == "1"
    assert world.registry.champion(NAME) is None


def test_the_plan_widens_the_search(world: World) -> None:
    had = ClusterConfig(slots=2, workers_per_trial=1, cpus_per_worker=3)
    config = replace(world.config, cluster=had, promotion=PromotionConfig(epochs=7, workers=2, fewest_workers=2))
    trial = world.trials[0]
    plan = plan_promotion(world.search, config, trial, world.data, None)
    assert plan.config.training.epochs == 7
    assert plan.fewest_workers == 2
    assert plan.config.cluster == ClusterConfig(slots=1, workers_per_trial=2, cpus_per_worker=3)
    assert plan_promotion(world.search, config, trial, world.data, 4).config.cluster.cpus_per_worker == 1
    assert plan_promotion(world.search, config, trial, world.data, 1).config.cluster.cpus_per_worker == 6
    unset = replace(config, promotion=PromotionConfig())
    assert plan_promotion(world.search, unset, trial, world.data, None).config.training.epochs == 2


@pytest.mark.parametrize(("share", "workers", "expected"), [(0.0, 2, 0.0), (0.5, 1, 1.0), (0.5, 2, 1.0), (1.0, 3, 1.0)])
def test_each_process_gets_a_gpu_of_its_own(world: World, share: float, workers: int, expected: float) -> None:
    config = replace(world.config, cluster=ClusterConfig(slots=2, gpus_per_worker=share))
    plan = plan_promotion(world.search, config, world.trials[0], world.data, workers)
    assert plan.config.cluster.gpus_per_worker == expected


def test_a_plan_has_a_folder_of_its_own_and_workers_do_not_change_it(world: World) -> None:
    plan = world.plan()
    assert plan.folder.parent == paths.runs_folder() / "s" / "promotions"
    assert world.plan().folder == plan.folder
    assert plan_promotion(world.search, world.config, world.trials[1], world.data, 2).folder == plan.folder
    others = [
        world.plan(0),
        world.plan(config=replace(world.config, promotion=PromotionConfig(epochs=3))),
        world.plan(config=config_of(world.home, learning_rate=0.5)),
        plan_promotion(world.search, world.config, replace(world.trials[1], seed=9), world.data, None),
        plan_promotion(world.search, world.config, world.trials[1], replace(world.data, fingerprint="x"), None),
        plan_promotion(replace(world.search, fingerprint="x"), world.config, world.trials[1], world.data, None),
    ]
    folders = {other.folder for other in others}
    with pytest.raises(UserError, match="no weights to begin with"):
        plan_promotion(world.search, world.config, world.trials[1], world.data, None, from_trial=True)
    assert len(folders) == len(others)
    assert plan.folder not in folders
