from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from mixrec_automl import full_run, full_training
from mixrec_automl.cluster.in_process import InProcessExecutor
from tests.mixrec_automl.full_training.world import World, on_each_epoch
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from tests.trainers.tiny_package import prepare_shop

from mlflow.tracking import MlflowClient  # isort: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with data, a backbone and a new MLflow database, which takes seconds to set up."""
    root = tmp_path_factory.mktemp("made")
    (root / "data").mkdir()
    prepare_shop(root, root / "data" / "shop")
    write_tiny_backbone(root / "backbone")
    MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}").search_registered_models()
    return root


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = Path(shutil.copytree(made, tmp_path / "home"))
    monkeypatch.setenv("MIXREC_HOME", str(home))
    for name in ("MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(full_training, "SlotExecutor", lambda training, *_, **__: InProcessExecutor(training))
    monkeypatch.setattr(full_run, "ray_session", contextlib.nullcontext)
    monkeypatch.setattr(full_run, "fitting", lambda cluster, _: cluster)
    return home


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(home)
    on_each_epoch(monkeypatch, lambda event: world.epochs.append(event.epoch))
    return world
