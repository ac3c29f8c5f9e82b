"""Own data, a search, a promotion by two processes, recommendations, an interruption and the gate: all by commands."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mixrec_automl.store.records import SearchState, best_trial
from tests.end_to_end.shell import Shell, assert_own_lines_only, wait_for
from tests.end_to_end.stage import SECONDS_TO_END, Stage
from tests.trainers.data.files import shop_items, shop_sequences, write_jsonl
from tests.trainers.tiny_backbone_folder import write_tiny_backbone

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to see what is left behind"),
]

USERS, ITEMS, EPOCHS = 150, 15, 10
CONFIG = """
data: {{name: shop, history: 4}}
backbone: {{name: {backbone}}}
model: {{bottleneck: 4, collaborative_dim: 8}}
training: {{epochs: 1, batch_size: 4, learning_rate: 5e-3, contrastive_negatives: 3}}
search: {{trials: 2, initial_trials: 2, user_share: 0.3}}
cluster: {{slots: 2}}
promotion: {{epochs: {epochs}, workers: 2}}
"""


def epochs_in(output: str) -> list[int]:
    return [int(number) for number in re.findall(rf"^epoch (\d+)/{EPOCHS}: validation MRR", output, re.MULTILINE)]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A home in which a search of two trials has ended."""
    folder = tmp_path_factory.mktemp("promote")
    shell = Shell(folder)
    items = write_jsonl(folder / "items.jsonl", shop_items(ITEMS))
    sequences = write_jsonl(folder / "sequences.jsonl.gz", shop_sequences(USERS, ITEMS))
    shell.run("data", "prepare", "--name", "shop", "--items", str(items), "--sequences", str(sequences))
    backbone = write_tiny_backbone(folder / "backbone")
    (folder / "shop.yaml").write_text(CONFIG.format(backbone=backbone, epochs=EPOCHS))
    output = shell.run("search", "shop.yaml", "--name", "s")
    assert "mixrec-automl promote s" in output
    return shell


def test_the_winner_is_promoted_and_recommends(shell: Shell) -> None:
    output = shell.run("promote", "s")
    assert_own_lines_only(output.splitlines())
    assert epochs_in(output) == list(range(1, EPOCHS + 1))
    assert f"training on all users: {EPOCHS} epochs, 2 processes of 1 CPU, from fresh weights" in output
    assert "better than popularity: test MRR +0." in output
    assert f"the same {USERS} users" in output
    assert "mixrec-shop version 1 is now the champion" in output
    assert Stage(shell.home).left_behind() == []

    shown = json.loads(shell.run("show", "s", "--json"))
    winner = max(shown["trials"], key=lambda trial: trial["mrr"])["number"]
    (promotion,) = shown["promotions"]
    assert (promotion["number"], promotion["state"], promotion["trial"]) == (0, "COMPLETED", winner)
    assert promotion["model_version"] == "mixrec-shop/1"
    assert promotion["metrics"]["test_users"] == USERS
    assert promotion["metrics"]["test_mrr"] > promotion["metrics"]["test_popularity_mrr"]

    found = json.loads(shell.run("recommend", "mixrec-shop", "--item", "i3", "--item", "i4", "--json", "-k", "3"))
    assert [one["rank"] for one in found] == [1, 2, 3]
    assert found[0] | {"score": 0} == {"rank": 1, "item": "i5", "title": "Thing 5", "score": 0}, "the next in line"
    said = shell.run("recommend", "mixrec-shop/1", "--text", "Thing 3", "--text", "Thing 4")
    assert_own_lines_only(said.splitlines())
    assert "after 2 items of history" in said
    assert said.count("Thing ") == 10
    assert "known are mixrec-shop/1" in shell.run("recommend", "mixrec-shop/7", "--item", "i1", code=2)


def test_an_interrupted_promotion_goes_on_and_meets_the_gate(shell: Shell) -> None:
    repository = Stage(shell.home).repository()
    winner = best_trial(repository.trials("s"))
    assert winner is not None
    other = str(1 - winner.number)
    before = len(repository.promotions("s"))

    process = shell.start("promote", "s", "--trial", other, "--from-trial")
    try:
        lines = wait_for(process, f"epoch 2/{EPOCHS}")
        ray_folders = set(re.findall(r"/tmp/mixrec-\w+", " ".join(Stage(shell.home).left_behind())))
        assert len(ray_folders) == 1, "the checks below can see Ray"
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends Ctrl-C to all processes in the foreground
        rest, _ = process.communicate(timeout=60)
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    output = "".join(lines) + rest
    assert process.returncode == 130, output
    assert took < SECONDS_TO_END, output
    assert_own_lines_only(output.splitlines())
    assert f"stopped; to go on: mixrec-automl promote s --trial {other} --from-trial" in output
    assert Stage(shell.home).left_behind() == []
    assert not any(Path(folder).exists() for folder in ray_folders)
    assert repository.promotions("s")[-1].state is SearchState.STOPPED

    again = shell.run("promote", "s", "--trial", other, "--from-trial")
    assert f"from the weights of trial {other}" in again
    assert epochs_in(again), again
    first = epochs_in(again)[0]
    assert epochs_in(again) == list(range(first, EPOCHS + 1))
    assert first in (epochs_in(output)[-1] + 1, epochs_in(output)[-1] + 2), "one may have ended unseen"
    assert re.search(r"better than (mixrec-shop version 1|popularity): test MRR", again), again
    recorded = repository.promotions("s")[before:]
    assert [one.state for one in recorded] == [SearchState.STOPPED, SearchState.COMPLETED]
    assert {one.trial for one in recorded} == {int(other)}
    name, version = str(recorded[-1].model_version).split("/")
    client = MlflowClient(tracking_uri=f"sqlite:///{shell.home / 'mlflow.db'}")
    assert client.get_model_version(name, version).tags["mixrec.began_with"] == f"the weights of trial {other}"


def test_a_rollback_that_cannot_be_is_one_line(shell: Shell) -> None:
    assert "give it without --trial" in shell.run("promote", "s", "--rollback", "--trial", "0", code=2)
    shell.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{shell.home / 'another.db'}"
    told = shell.run("promote", "s", "--rollback", code=2)
    assert told.splitlines() == ["error: mixrec-shop has no champion that could be rolled back"]
