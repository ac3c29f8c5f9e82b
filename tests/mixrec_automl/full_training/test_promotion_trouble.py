"""Promotions that meet others, a champion that comes or goes, and what is away; all parts are real but Ray."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mixrec_automl import paths, patience, promote
from mixrec_automl.claim import claim
from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.full_training import (
    Evaluation,
    FullTrainingError,
)
from mixrec_automl.gate import Decision, challenge
from mixrec_automl.mlflow_model_run import ModelRun, run_of_promotion
from mixrec_automl.registry import ModelVersion, Registry
from mixrec_automl.store.errors import DatabaseUnavailableError, WrongStateError
from mixrec_automl.store.records import KILLED, Promotion, SearchState
from mixrec_automl.store.repository import Repository
from tests.mixrec_automl.champions import crown
from tests.mixrec_automl.full_training.world import EPOCHS, NAME, World, on_each_epoch, weak_and_strong
from trainers.errors import UserError
from trainers.package import Package

from mlflow.entities import Metric  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip


def test_a_champion_that_came_during_the_training_is_the_rival(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read once at the start, it would be overwritten unseen."""
    first = world.promote()
    assert first is not None
    client = MlflowClient(tracking_uri=paths.tracking_uri())
    client.delete_registered_model_alias(NAME, "champion")

    def another_ends(event: EpochEnded) -> None:
        if event.epoch == 2:
            crown(world.registry, first.version)

    on_each_epoch(monkeypatch, another_ends)
    second = world.promote(0)
    assert second is not None
    assert second.decision.rival == f"{NAME} version 1"


def test_a_champion_that_came_during_the_comparison_is_met_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring the champion and storing the model take long; whoever comes meanwhile must not be replaced unseen."""
    weak, strong = weak_and_strong(world, monkeypatch)
    crown(world.registry, weak)
    met: list[str] = []

    def meanwhile(evaluation: Evaluation, champion: Callable[[], Package], name: str, **options: Any) -> Decision:
        met.append(name)
        crown(world.registry, strong)
        return challenge(evaluation, champion, name, **options)

    monkeypatch.setattr(promote, "challenge", meanwhile)
    third = world.promote()
    assert third is not None
    assert met == [f"{NAME} version 1", f"{NAME} version 2"]
    assert not third.decision.moves, "it is the same model as version 2"
    assert world.registry.champion(NAME) == strong


def test_a_champion_that_comes_at_the_last_moment_is_met_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    weak, strong = weak_and_strong(world, monkeypatch)
    registry = world.registry
    registry.replace_champion(strong, weak)
    moved, move = [], Registry.replace_champion

    def late(registry: Registry, before: ModelVersion | None, version: ModelVersion) -> bool:
        if not moved:
            moved.append(move(registry, weak, strong))
        return move(registry, before, version)

    monkeypatch.setattr(Registry, "replace_champion", late)
    third = world.promote()
    assert third is not None
    assert moved == [True]
    assert third.decision.rival == str(strong)
    assert not third.decision.moves
    assert registry.champion(NAME) == strong


def test_a_champion_whose_files_are_gone_is_told_before_the_training_and_replaced_by_force(
    world: World, tmp_path: Path
) -> None:
    first = world.promote()
    assert first is not None
    world.registry.fetch(first.version, tmp_path).rename(tmp_path / "away")
    with pytest.raises(UserError, match="promote it again, or give --force to replace it unseen"):
        world.promote(0)
    assert world.states() == [SearchState.COMPLETED]
    second = world.promote(0, force=True)
    assert second is not None
    assert second.decision.reason == f"forced past {NAME} version 1, which cannot be read"
    assert world.registry.champion(NAME) == second.version


def test_one_that_was_taken_for_killed_is_recorded_as_it_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another machine, which does not see what this one has claimed."""

    def another_looks(event: EpochEnded) -> None:
        if event.epoch == 2:
            world.repository.finish_promotion("s", 0, SearchState.FAILED, error=KILLED)

    on_each_epoch(monkeypatch, another_looks)
    outcome = world.promote()
    assert outcome is not None
    (recorded,) = world.repository.promotions("s")
    assert (recorded.state, recorded.error) == (SearchState.COMPLETED, None)
    assert recorded.model_version == outcome.version.reference
    with pytest.raises(WrongStateError):
        world.repository.finish_promotion("s", 0, SearchState.FAILED, error="too late")


def test_what_waited_for_mlflow_is_kept_of_a_promotion_that_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, abandon, is_back = MlflowClient.log_batch, ModelRun.abandon, []

    def away(client: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **rest: Any) -> None:
        if metrics and world.epochs and not is_back:
            raise MlflowException("connection refused")
        told(client, run_id, metrics=metrics, **rest)

    def stop(event: EpochEnded) -> None:
        world.epochs.append(event.epoch)
        if event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    def back_by_then(run: ModelRun, status: str) -> None:
        is_back.append(status)
        abandon(run, status)

    monkeypatch.setattr(MlflowClient, "log_batch", away)
    monkeypatch.setattr(ModelRun, "abandon", back_by_then)
    on_each_epoch(monkeypatch, stop)
    assert world.promote() is None
    (run,) = world.mlflow_runs()
    history = MlflowClient(tracking_uri=paths.tracking_uri()).get_metric_history(run.info.run_id, "validation_mrr")
    assert sorted(one.step for one in history)[:2] == [1, 2]


def test_mlflow_and_the_database_may_be_away_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow during the training, the database at its end: the training goes on, and nothing is missing afterwards."""
    told, recorded, failures = MlflowClient.log_batch, Repository.finish_promotion, []

    def away(client: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **rest: Any) -> None:
        if metrics and world.epochs and world.epochs[-1] < 3:
            failures.append("MLflow")
            raise MlflowException("connection refused")
        told(client, run_id, metrics=metrics, **rest)

    def hesitant(repository: Repository, *arguments: Any, **options: Any) -> Promotion:
        if failures.count("database") < 2:
            failures.append("database")
            raise DatabaseUnavailableError("no route to host")
        return recorded(repository, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", away)
    monkeypatch.setattr(Repository, "finish_promotion", hesitant)
    assert world.promote() is not None
    assert failures == ["MLflow"] * 2 + ["database"] * 2
    assert world.states() == [SearchState.COMPLETED]
    (run,) = world.mlflow_runs()
    assert run.info.status == "FINISHED"
    history = MlflowClient(tracking_uri=paths.tracking_uri()).get_metric_history(run.info.run_id, "validation_mrr")
    assert sorted(one.step for one in history) == list(range(1, EPOCHS + 1))


def test_an_error_is_raised_though_the_database_cannot_take_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailableError("no route to host")

    monkeypatch.setattr(patience, "PATIENCE_WHEN_STOPPING", 0.1)
    monkeypatch.setattr(Repository, "finish_promotion", away)
    shutil.rmtree(world.home / "backbone")
    with pytest.raises(FullTrainingError, match="no such folder"):
        world.promote()
    assert [run.info.status for run in world.mlflow_runs()] == ["FAILED"]


def test_a_second_process_is_refused_before_it_trains(world: World) -> None:
    with claim(world.plan().folder, "promotion"), pytest.raises(UserError, match="another process is at it"):
        world.promote()
    assert world.states() == []
    assert world.promote() is not None


def test_one_whose_process_was_killed_is_ended_by_the_next_of_its_trial(world: World) -> None:
    for trial in (0, 1, 1):
        killed = world.repository.add_promotion("s", trial)
    run_of_promotion(world.repository, killed, world.plan())
    sibling = world.plan().folder.with_name("trial-1-otherwise")
    with claim(sibling, "promotion"):
        assert world.promote() is not None
    assert world.states() == [SearchState.RUNNING] * 3 + [SearchState.COMPLETED], (
        "one of them may be that of the sibling"
    )
    assert world.promote() is not None
    assert world.states() == [SearchState.RUNNING] + [SearchState.FAILED] * 2 + [SearchState.COMPLETED] * 2
    assert {one.error for one in world.repository.promotions("s")} == {None, "its process was killed"}
    assert sorted(run.info.status for run in world.mlflow_runs()) == ["FINISHED", "FINISHED", "KILLED"]
