"""The commands `search` and `resume` on a tiny backbone and a tiny data set: every part is the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from tests.trainers.tiny_backbone_folder import write_tiny_backbone

pytestmark = pytest.mark.end_to_end

ITEMS, USERS = 30, 24
CONFIG = """
data: {name: walks, history: 5}
backbone: {name: BACKBONE, layers: 2}
model: {bottleneck: 4, collaborative_dim: 4}
training: {epochs: 2, learning_rate: 1.0e-2}
search: {trials: 3, initial_trials: 2, user_share: 0.75}
"""


def write_data(folder: Path) -> None:
    """Users walk through the items in steps of one from a random start."""
    rng = np.random.default_rng(0)
    items = [{"id": f"i{number}", "title": f"Thing {number}"} for number in range(ITEMS)]
    walks = [
        {"user": f"u{number}", "items": [f"i{(start + step) % ITEMS}" for step in range(8)]}
        for number, start in enumerate(rng.integers(ITEMS, size=USERS))
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "sequences.jsonl").write_text("".join(json.dumps(walk) + "\n" for walk in walks))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_backbone(tmp_path / "backbone", layers=3)
    write_data(tmp_path)
    # A relative path, which has to mean the same in the workers.
    (tmp_path / "walks.yaml").write_text(CONFIG.replace("BACKBONE", "./backbone"))
    return tmp_path


def run(folder: Path, *arguments: str, expected: int = 0) -> str:
    """`mixrec-automl` with these arguments; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {
        "MIXREC_HOME": str(folder / "home"),
        "MIXREC_DATABASE_URL": f"sqlite:///{folder / 'home' / 'mixrec.db'}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'home' / 'mlflow.db'}",
    }
    finished = subprocess.run(
        [sys.executable, "-m", "mixrec_automl.cli.app", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == expected, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


def test_a_search_from_own_files_to_its_summary(folder: Path) -> None:
    run(folder, "data", "prepare", "--name", "walks", "--items", "items.jsonl", "--sequences", "sequences.jsonl",
        "--min-item-interactions", "0")  # fmt: skip
    filters = ("--set", "data.filters.min_item_interactions=0")
    output = run(folder, "search", "walks.yaml", "--name", "first", *filters)
    assert f"data      walks: {3 * USERS // 4} users in Data_BO, {ITEMS} items" in output
    assert "of the trained items have hard negatives" in output
    assert "space     6 bits, 64 designs; 3 trials" in output
    assert "trial 2  " in output
    assert "search first: COMPLETED, 3 of 3 trials ended" in output
    assert "recommendation adapter" in output, "the winner as a table"
    assert "mixrec-automl promote first" in output

    shown = json.loads(run(folder, "show", "first", "--json"))
    assert [trial["state"] for trial in shown["trials"]] == ["COMPLETED"] * 3
    assert len({trial["architecture"] for trial in shown["trials"]}) == 3
    assert shown["trials"][0]["architecture"] == "000-000"
    assert shown["trials"][2]["origin"] == "probabilistic reparameterization"
    assert all(0 < trial["mrr"] <= 1 for trial in shown["trials"])

    # What can be known to be wrong is said in one line, before anything is started.
    assert "a search named 'first' exists" in run(folder, "search", "walks.yaml", "--name", "first", expected=2)
    assert "search 'first' is complete" in run(folder, "resume", "first", expected=2)
    assert "no search is named 'frist': did you mean 'first'?" in run(folder, "resume", "frist", expected=2)
    output = run(folder, "search", "walks.yaml", *filters, "--set", "cluster.slots=5000", expected=2)
    assert "5000 x 1 processes with 1 CPU each do not fit" in output
    assert len(json.loads(run(folder, "searches", "--json"))) == 1, "a refused search is not recorded"


def test_a_study_from_the_command_line(folder: Path) -> None:
    """On Ray, into MLflow."""
    output = run(folder, "study", "run", "moe-control", "--smoke")
    assert "trial 0  context  COMPLETED" in output
    assert "MRR minus context" in output
    assert "plot: " in output
    assert "MLflow lags" not in output
    rows = json.loads(run(folder, "study", "show", "study-moe-control-walks", "--json"))
    floors = ["popularity", "repeat-last", "item-knn", "markov"]
    assert [row["name"] for row in rows] == ["context", "causal", "causal+columns", *floors]

    client = MlflowClient(f"sqlite:///{folder / 'home' / 'mlflow.db'}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "study-moe-control-walks")
    runs = {
        one.data.params["variant"]: one for one in client.search_runs([experiment.experiment_id], "params.seed = '1'")
    }
    assert sorted(runs) == ["causal", "causal+columns", "context"]
    assert all(one.data.metrics["test_mrr"] > 0 for one in runs.values())
