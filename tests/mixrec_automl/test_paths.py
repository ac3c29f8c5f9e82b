"""Home, addresses and names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixrec_automl import paths
from trainers.errors import UserError


def test_everything_lies_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path))
    monkeypatch.delenv("MIXREC_DATABASE_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert paths.data_folder("ml-100k") == tmp_path / "data" / "ml-100k"
    assert paths.database_url() == f"sqlite:///{tmp_path}/mixrec.db"
    assert paths.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    for folder in (paths.backbones_folder(), paths.runs_folder(), paths.downloads_folder()):
        assert folder.parent == tmp_path


def test_environment_moves_home_and_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MIXREC_HOME", raising=False)
    assert paths.home() == Path.home() / ".mixrec-automl"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXREC_HOME", "here")
    assert paths.home() == tmp_path / "here"
    monkeypatch.setenv("MIXREC_DATABASE_URL", "postgresql://db/mixrec")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert (paths.database_url(), paths.tracking_uri()) == ("postgresql://db/mixrec", "http://mlflow:5000")


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "a\n", "é", "x" * 101])
def test_bad_names(name: str) -> None:
    with pytest.raises(UserError, match=r"data set name .* is not valid: use 1 to 100 letters"):
        paths.data_folder(name)


@pytest.mark.parametrize("name", ["a", "ml-100k", "A_1.2", "x" * 100])
def test_good_names(name: str) -> None:
    assert paths.data_folder(name).name == name
