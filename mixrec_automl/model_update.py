"""A registered model brought up to date: trained on from its own weights, on newer data with new items and users.

It needs no search, and a share of the epochs of a whole training. `trainers/extension.py` says where it begins.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.claim import claim
from mixrec_automl.full_run import FullRun, Outcome
from mixrec_automl.full_training import Evaluation, FullTraining, key_of
from mixrec_automl.gate import Decision, challenge, succeed
from mixrec_automl.interruption import stop_on_signals
from mixrec_automl.mlflow_model_run import ModelRun, run_of_update
from mixrec_automl.registry import PACKAGE, ModelVersion, Registry, scratch_folder
from mixrec_automl.search_config import ClusterConfig, SearchConfig
from search_spaces.design import Design
from trainers.config import BackboneConfig
from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import open_prepared
from trainers.device import pick_device
from trainers.errors import UserError
from trainers.extension import extended, start_of
from trainers.package import BACKBONE, Package, read_package, whole_folder

SHARE_OF_EPOCHS = 1 / 3
"""Of those of the model's last training, where no number is given"""
SEED = 0
START = "start.safetensors"


@dataclass(frozen=True)
class Update:
    """What becomes of a version on newer data."""

    version: ModelVersion
    """That is trained on"""
    data: SequenceData
    plan: FullTraining
    news: str
    """What is new in the data, for people"""


def plan_update(registry: Registry, model: str, name: str, *, epochs: int | None, workers: int) -> Update:
    """Everything that decides on the update of `model` with newer data, and the weights it begins with, on disk.

    Args:
        model: as `Registry.find`.
        name: of the newer data, which are prepared.
        epochs: None: `SHARE_OF_EPOCHS` of the model's last training.
        workers: data-parallel processes.

    Raises:
        UserError: no such model or data, data that it was trained on, or its M_cf is frozen.
    """
    data, version = open_prepared(paths.data_folder(name)), registry.find(model)
    if version.data_fingerprint == data.fingerprint:
        raise UserError(f"{version} was trained on this very data: prepare newer data under another name")
    updates = paths.runs_folder() / version.name / "updates"
    place = _fetched(registry, version, updates / f"version-{version.version}")
    package = read_package(place)
    had = package.config
    if had.model.collaborative_training == "frozen":
        raise UserError(
            f"{version} has a frozen M_cf, which knows the items of its own data alone: promote anew instead"
        )
    config = SearchConfig(
        data=replace(had.data, name=name),
        backbone=BackboneConfig(name=str(place / BACKBONE)),
        model=had.model,
        training=replace(had.training, epochs=epochs or math.ceil(SHARE_OF_EPOCHS * had.training.epochs)),
        cluster=ClusterConfig(
            workers_per_trial=workers,
            cpus_per_worker=max(1, (os.cpu_count() or 1) // workers),
            gpus_per_worker=float(pick_device().type == "cuda"),
        ),
    )
    stored = config.as_dict()
    deciding = [version.reference, version.data_fingerprint, data.fingerprint, stored["model"], stored["training"]]
    folder = updates / f"version-{version.version}-{key_of(deciding)}"
    plan = FullTraining(
        what=f"update-of-version-{version.version}",
        design=Design(package.architecture),
        seed=SEED,
        config=config,
        folder=folder,
        began_with=f"the weights of {version}",
        start=start_of(package, data, folder / START),
    )
    return Update(version, data, plan, _news(package, data))


def _fetched(registry: Registry, version: ModelVersion, folder: Path) -> Path:
    """Its package: in place where the registry's files are here, else in `folder`, whole, where an update that runs
    already may be reading it."""
    kept = folder / PACKAGE
    if kept.exists():
        return kept
    with scratch_folder() as scratch:
        place = registry.fetch(version, Path(scratch))
        if not place.is_relative_to(Path(scratch)):
            return place
        try:
            with whole_folder(kept) as made:
                shutil.copytree(place, made, dirs_exist_ok=True)
        except OSError:
            if not kept.exists():  # else another process was first
                raise
    return kept


def _news(package: Package, data: SequenceData) -> str:
    old, new = package.catalogue.index.keys(), data.catalogue.index.keys()
    gone = f", and {len(old - new):,} of its items are gone" if old - new else ""
    return f"{len(new):,} items, {len(new - old):,} of them new to it{gone}; {data.num_users:,} users"


def run_update(update: Update, registry: Registry, console: Console) -> Outcome | None:
    """Carry out `update` and register the next version of its model; None where Ctrl-C or SIGTERM stopped it.

    Raises:
        UserError: as `FullRun.carry_out`, or another process is at it.
        FullTrainingError: the training raised.
    """
    full = FullRun(update.plan, update.data, registry, update.version.name, console)
    champion = registry.champion(full.name)
    if champion is not None:
        registry.check_files(champion)  # it is to be met; better told now
    with claim(update.plan.folder, update.plan.what), stop_on_signals() as stop:
        run: ModelRun | None = None
        try:
            with console.status("MLflow"):
                run = run_of_update(full.name, update.plan)
            outcome = full.carry_out(run, stop, partial(_meet, data=update.data))
        except KeyboardInterrupt:
            _abandon(run, "KILLED")
            return None
        except BaseException:
            _abandon(run, "FAILED")
            raise
        run.finish()
    return outcome


def _abandon(run: ModelRun | None, status: str) -> None:
    if run is not None:
        run.abandon(status)


def _meet(evaluation: Evaluation, read_champion: Callable[[], Package], name: str, data: SequenceData) -> Decision:
    champion = read_champion()
    if champion.data_fingerprint == data.fingerprint:
        return challenge(evaluation, lambda: champion, name, data, force=False)
    return succeed(evaluation, extended(champion, data), f"{name} as it is", data)
