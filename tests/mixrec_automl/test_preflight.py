"""What is refused before a search starts; too few resources are in `cluster/test_slot_executor.py`, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixrec_automl import launch
from mixrec_automl.cluster import ray_session
from mixrec_automl.cluster.ray_session import check_one_machine
from trainers.errors import UserError


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    launch._check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"checkpoints cannot be written to .*file/runs: Not a directory; MIXREC_HOME"):
        launch._check_writable(tmp_path / "file" / "runs")


def test_several_machines_where_one_alone_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True}, {"Alive": False}]
    monkeypatch.setattr(ray_session.ray, "nodes", lambda: nodes)
    check_one_machine("SQLite serves one machine alone")
    nodes.append({"Alive": True})
    with pytest.raises(UserError, match="this Ray cluster has 2 nodes, but SQLite serves one machine alone"):
        check_one_machine("SQLite serves one machine alone")
