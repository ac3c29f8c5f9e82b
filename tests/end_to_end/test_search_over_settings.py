"""A search over bits and settings by command, and the promotion of its winner: every part is the real one."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.end_to_end.shell import Shell
from tests.trainers.data.files import shop_items, shop_sequences, write_jsonl
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from trainers.package import read_package

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

CONFIG = """
data: {name: shop, history: 4}
backbone: {name: BACKBONE, layers: 2}
model: {bottleneck: 4, collaborative_dim: 8}
training: {epochs: 1, batch_size: 8, learning_rate: 5e-3, contrastive_negatives: 3}
search:
  trials: 5
  initial_trials: 3
  confirmation_share: 0
  user_share: 0.5
  second_objective: trainable_parameters
  settings:
    model.replacement_frequency: [1, 2]
    training.learning_rate: {low: 1.0e-3, high: 1.0e-1, scale: log}
promotion: {epochs: 1}
"""


def test_designs_with_settings_are_searched_shown_and_promoted(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    items = write_jsonl(tmp_path / "items.jsonl", shop_items(15))
    sequences = write_jsonl(tmp_path / "sequences.jsonl.gz", shop_sequences(60, 15))
    shell.run("data", "prepare", "--name", "shop", "--items", str(items), "--sequences", str(sequences))
    (tmp_path / "shop.yaml").write_text(
        CONFIG.replace("BACKBONE", str(write_tiny_backbone(tmp_path / "backbone", layers=2)))
    )
    output = shell.run("search", "shop.yaml", "--name", "s")
    assert "space     6 bits and 2 settings, any number of designs; 5 trials" in output
    assert re.search(r"sizes     [\d,]+ to [\d,]+ trainable parameters", output)
    assert "trial 0  000-000 model.replacement_frequency=1 training.learning_rate=0.005  COMPLETED" in output

    shown = json.loads(shell.run("show", "s", "--json"))
    trials = shown["trials"]
    assert [trial["state"] for trial in trials] == ["COMPLETED"] * 5
    assert trials[0]["settings"] == {"model.replacement_frequency": 1, "training.learning_rate": 5e-3}
    assert [trial["origin"] for trial in trials[:3]] == ["fixed design", "Sobol", "Sobol"]
    assert {trial["origin"] for trial in trials[3:]} <= {"probabilistic reparameterization", "replication"}
    frequencies = [trial["settings"]["model.replacement_frequency"] for trial in trials]
    assert [len(trial["architecture"].split("-")) for trial in trials] == [2 // one for one in frequencies]
    assert len({trial["settings"]["training.learning_rate"] for trial in trials}) > 2
    winner = max(trials, key=lambda trial: trial["mrr"])
    assert shown["best_settings"] == winner["settings"]
    sizes = {trial["metrics"]["trainable_parameters"] for trial in trials}
    assert len(sizes) == len(set(frequencies)), "a layer less has fewer"
    front = shown["pareto_front"]
    for smaller, larger in pairwise(front):
        assert smaller["trainable_parameters"] < larger["trainable_parameters"]
        assert smaller["expected_mrr"] < larger["expected_mrr"]
    assert front[0]["trainable_parameters"] == min(sizes)
    assert "Pareto front: the best MRR at every size" in output
    client = MlflowClient(tracking_uri=f"sqlite:///{shell.home / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "s"]
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`mixrec.trial` = '{winner['number']}'")
    assert run.data.metrics["trainable_parameters"] == winner["metrics"]["trainable_parameters"]
    assert run.data.params["training.learning_rate"] == str(winner["settings"]["training.learning_rate"])

    output = shell.run("promote", "s")
    assert f"model.replacement_frequency: {winner['settings']['model.replacement_frequency']}" in output
    assert "mixrec-shop version 1 is" in output
    found = re.search(r"ranks +(\S+)", output)
    assert found is not None
    package = read_package(Path(found[1]) / "package")
    assert package.config.model.replacement_frequency == winner["settings"]["model.replacement_frequency"]
    assert package.config.training.learning_rate == winner["settings"]["training.learning_rate"]
