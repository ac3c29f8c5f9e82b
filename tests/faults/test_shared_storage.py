"""The storage that all nodes of a cluster share goes away under a submitted search, and comes back."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.drive import NAME
from tests.end_to_end.shell import Shell, rest_of, wait_for
from tests.end_to_end.stage import Stage
from tests.faults.conftest import Recoveries
from tests.faults.test_nodes import LONG_EPOCHS, check_search
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts in the nodes' own view of files"),
]

AWAY_SECONDS = 10
TROUBLES = {
    "read-only": (("mount", "--bind", "{0}", "{0}"), ("mount", "-o", "remount,bind,ro", "{0}")),
    "gone": (("mount", "-t", "tmpfs", "-o", "ro", "nothing", "{0}"),),
}
"""What a node sees of the folder: all that was there, or nothing. `umount` takes it away again."""


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str) -> Iterator[RayCluster]:
    home = {"MIXREC_HOME": str(tmp_path / "home"), "MIXREC_DATABASE_URL": postgres_url, "HF_HUB_OFFLINE": "1"}
    with ray_cluster(home, workers=2, cpus=1) as made:
        yield made


@pytest.mark.parametrize(("how", "slots", "workers"), [("read-only", 2, 1), ("gone", 1, 2)])
def test_the_shared_checkpoints_are_away_for_a_while(
    cluster: RayCluster,
    tmp_path: Path,
    postgres_url: str,
    recoveries: Recoveries,
    how: str,
    slots: int,
    workers: int,
) -> None:
    """Trials on both nodes wait, side by side or each on both; no attempt counts against any."""
    stage, shell = Stage(tmp_path / "home", postgres_url), Shell(tmp_path / "client")
    shell.folder.mkdir()
    shell.environment.update(cluster.environment)
    at = ("--address", cluster.dashboard)
    settings = {
        "search.trials": 2,
        "search.initial_trials": 2,
        "cluster.slots": slots,
        "cluster.workers_per_trial": workers,
        "training.epochs": LONG_EPOCHS,
    }
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    shell.run("submit", "smoke", "--name", NAME, *options, *at)
    stage.wait_for_trials(lambda trials: bool(trials) and len(stage.observations()) > 2, 240)

    folder = str(tmp_path / "home" / "runs")
    reader = shell.start("logs", NAME, "--follow", *at)
    try:
        for node in cluster.workers:
            for command in TROUBLES[how]:
                node.run(*(part.format(folder) for part in command))
        wait_for(reader, "checkpoints cannot be written, trials wait")
        before = len(stage.observations())
        time.sleep(AWAY_SECONDS)
        during = len(stage.observations())
        for node in cluster.workers:
            node.run("umount", "--lazy", folder)
        with recoveries.timed(f"shared storage {how} for {AWAY_SECONDS} s", "a trial has finished another epoch"):
            stage.wait_for_trials(lambda _: len(stage.observations()) > during)
        rest = rest_of(reader)
    finally:
        reader.kill()
        reader.wait()
    assert during <= before + slots, "it was away"
    assert "COMPLETED, 2 of 2 trials ended" in rest
    check_search(stage)
    assert [trial.losses for trial in stage.trials()] == [0, 0]
