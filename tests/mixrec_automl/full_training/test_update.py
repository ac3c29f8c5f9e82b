"""An update with all real parts but Ray, as the promotions of `test_promotion.py`."""

from __future__ import annotations

import io
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.full_run import Outcome
from mixrec_automl.mlflow_model_run import TAG_UPDATE
from mixrec_automl.model_update import START, Update, plan_update, run_update
from mixrec_automl.registry import ModelVersion, Registry
from tests.mixrec_automl.full_training.world import EPOCHS, NAME, World, on_each_epoch
from tests.trainers.tiny_package import NEW_ITEMS, NEW_USERS, NUM_ITEMS, NUM_USERS, prepare_newer_shop
from trainers import checkpoint
from trainers.data.store_format import open_prepared
from trainers.errors import UserError
from trainers.package import read_package
from trainers.recommend import Query, recommend

from mlflow.tracking import MlflowClient  # isort: skip

NEWER = "newer-shop"


@pytest.fixture
def promoted(world: World) -> World:
    """With a champion, and with newer data."""
    assert world.promote() is not None
    prepare_newer_shop(world.home, paths.data_folder(NEWER))
    world.epochs.clear()
    return world


def planned(world: World, data: str = NEWER, *, epochs: int | None = None, model: str = NAME) -> Update:
    return plan_update(world.registry, model, data, epochs=epochs, workers=1)


def updated(world: World, epochs: int | None = None) -> Outcome | None:
    world.epochs.clear()
    return run_update(planned(world, epochs=epochs), world.registry, Console(file=io.StringIO()))


def test_an_update_is_trained_on_tested_and_registered_as_the_next_version(promoted: World) -> None:
    before = promoted.registry.champion(NAME)
    assert planned(promoted).news == (
        f"{NUM_ITEMS - 1 + NEW_ITEMS} items, {NEW_ITEMS} of them new to it, and 1 of its items are gone; "
        f"{NUM_USERS + NEW_USERS} users"
    )
    outcome = updated(promoted)
    assert outcome is not None
    assert promoted.epochs == list(range(1, -(-EPOCHS // 3) + 1)), "a third of the epochs of before"
    newer = open_prepared(paths.data_folder(NEWER))
    assert outcome.version == ModelVersion(NAME, "2", newer.fingerprint)
    assert outcome.evaluations[0].metrics.users == NUM_USERS + NEW_USERS
    assert outcome.decision.moves
    assert f"than {NAME} version 1 as it is: test MRR" in outcome.decision.reason
    assert promoted.registry.champion(NAME) == outcome.version

    package = read_package(promoted.registry.fetch(outcome.version, promoted.home))
    assert package.config.data.name == NEWER
    assert recommend(package, Query([f"i{NUM_ITEMS}", "i1"])), "it knows the new items"
    client = MlflowClient(tracking_uri=paths.tracking_uri())
    tags = client.get_model_version(NAME, "2").tags
    assert tags["mixrec.began_with"] == f"the weights of {NAME} version 1"
    assert tags["mixrec.gate"] == outcome.decision.reason
    run = client.get_run(client.get_model_version(NAME, "2").run_id)
    assert run.data.tags[TAG_UPDATE] == NAME
    assert run.info.status == "FINISHED"
    assert run.data.params["data"] == NEWER
    assert run.data.metrics["test_mrr"] == pytest.approx(outcome.evaluations[0].metrics.mrr)
    assert promoted.registry.roll_back(NAME) == (outcome.version, before)


def test_an_update_that_is_worse_leaves_the_champion_where_it_is(promoted: World) -> None:
    """It begins with weights that rank the other way round, and learns nothing."""
    update = planned(promoted, epochs=1)
    start = update.plan.folder / START
    weights, _ = checkpoint.read(start)
    for name in ("item_projection.weight", "item_projection.bias"):
        weights[name].neg_()
    checkpoint.write(start, weights, {})
    config = update.plan.config
    still = replace(config.training, learning_rate=1e-12, collaborative_learning_rate=1e-12)
    ruined = replace(update, plan=replace(update.plan, config=replace(config, training=still)))
    outcome = run_update(ruined, promoted.registry, Console(file=io.StringIO()))
    assert outcome is not None
    assert not outcome.decision.moves
    assert outcome.decision.reason.startswith(f"worse than {NAME} version 1 as it is: test MRR -")
    assert promoted.registry.champion(NAME) == ModelVersion(NAME, "1", promoted.data.fingerprint)


def test_ctrl_c_stops_an_update_and_the_same_one_goes_on(promoted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(event: EpochEnded) -> None:
        if event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        on_each_epoch(patched, interrupt)
        assert updated(promoted) is None
    client = MlflowClient(tracking_uri=paths.tracking_uri())
    experiment = client.get_experiment_by_name(NAME)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    start = planned(promoted).plan.folder / START
    written = start.stat().st_mtime_ns
    assert updated(promoted) is not None
    assert promoted.epochs[0] > 1
    assert start.stat().st_mtime_ns == written


def test_an_update_again_after_it_became_champion_is_of_the_same_data(promoted: World) -> None:
    assert updated(promoted, epochs=1) is not None
    with pytest.raises(UserError, match=f"{NAME} version 2 was trained on this very data: prepare newer data"):
        planned(promoted)
    other = planned(promoted, model=f"{NAME}/1", epochs=2)
    outcome = run_update(other, promoted.registry, Console(file=io.StringIO()))
    assert outcome is not None
    assert outcome.decision.rival == f"{NAME} version 2", "which is asked as any champion of the same data"


def test_what_cannot_be_updated_is_refused(promoted: World) -> None:
    with pytest.raises(UserError, match="was trained on this very data"):
        planned(promoted, data="shop")
    with pytest.raises(UserError, match="no model 'nope'"):
        planned(promoted, model="nope")


def test_a_package_out_of_a_remote_registry_is_fetched_once(
    promoted: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An update that runs reads its backbone from there; a second one must not write it anew."""
    fetch, fetched = Registry.fetch, []

    def remote(registry: Registry, version: ModelVersion, folder: Path) -> Path:
        fetched.append(version)
        return Path(shutil.copytree(fetch(registry, version, folder), folder / "package"))

    monkeypatch.setattr(Registry, "fetch", remote)
    first, second = planned(promoted), planned(promoted, epochs=2)
    assert fetched == [first.version]
    assert first.plan.config.backbone == second.plan.config.backbone
    place = Path(first.plan.config.backbone.name)
    assert place.is_relative_to(paths.runs_folder())
    whole = read_package(fetch(promoted.registry, first.version, tmp_path))
    assert read_package(place.parent).catalogue.ids == whole.catalogue.ids


def test_a_champion_whose_files_are_gone_is_told_before_the_training(promoted: World, tmp_path: Path) -> None:
    update = planned(promoted)
    second = promoted.promote()
    assert second is not None
    promoted.registry.replace_champion(update.version, second.version)
    promoted.registry.fetch(second.version, tmp_path).rename(tmp_path / "away")
    promoted.epochs.clear()
    with pytest.raises(UserError, match="promote it again"):
        run_update(update, promoted.registry, Console(file=io.StringIO()))
    assert promoted.epochs == []
