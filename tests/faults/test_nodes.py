"""Machines of a cluster that die or stand still: nothing finished is lost, and what ran goes on from its checkpoint.

Each node is a family of processes on this machine; all share its disk, as the nodes of a cluster share a storage.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixrec_automl.store.records import SearchState, TrialState
from tests.end_to_end.drive import NAME
from tests.end_to_end.shell import Shell, rest_of, wait_for
from tests.end_to_end.stage import WORKER, Controller, Stage, check_results, plan
from tests.faults.conftest import Recoveries
from tests.ray_cluster import RayCluster, ray_cluster
from tests.redis_server import redis_server

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds Ray's processes in /proc"),
]

EPOCHS = 20
LONG_EPOCHS = 100
LONG = (
    "--set", "search.trials=2", "--set", "search.initial_trials=2", "--set", "cluster.slots=1",
    "--set", f"training.epochs={LONG_EPOCHS}",
)  # fmt: skip
"""Of the smoke test's search, so that there is time for a fault"""
HEAD_AWAY_SECONDS = 10
CONTROLLER = f"--name {NAME}"
"""In its command line"""


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str) -> Iterator[RayCluster]:
    """Three workers of one CPU, for searches with one or two slots, and a head that can die."""
    home = {"MIXREC_HOME": str(tmp_path / "home"), "MIXREC_DATABASE_URL": postgres_url, "HF_HUB_OFFLINE": "1"}
    with redis_server(tmp_path) as redis, ray_cluster(home, workers=3, cpus=1, redis=redis) as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path, postgres_url: str, cluster: RayCluster) -> Stage:
    return Stage(tmp_path / "home", postgres_url, environment={"RAY_ADDRESS": cluster.address, **cluster.environment})


@pytest.fixture
def shell(tmp_path: Path, cluster: RayCluster) -> Shell:
    """On a client's side: it knows neither database nor home of the cluster."""
    made = Shell(tmp_path / "client")
    made.folder.mkdir()
    made.environment.update(cluster.environment)
    return made


def check_went_on(stage: Stage, number: int, attempt: int) -> None:
    """It did not begin anew, and no epoch is missing."""
    seen = stage.observations(number)
    assert {one.epoch for one in seen} == set(range(1, EPOCHS + 1))
    assert min(one.epoch for one in seen if one.attempt == attempt) > 1


def begin(controller: Controller) -> None:
    for trial in (0, 1):
        controller.wait_for(f"trial {trial}  .*epoch 3/", 120)


def test_a_node_dies_in_the_middle_of_an_epoch(stage: Stage, cluster: RayCluster, recoveries: Recoveries) -> None:
    """Another one goes on with its trial; where there is none, the slot waits for one that joins."""
    with stage.controller(plan(trials=4, slots=2, epochs=EPOCHS, seconds=2.0)) as controller:
        begin(controller)
        cluster.workers_with(WORKER)[0].kill()
        with recoveries.timed("node killed, one is spare", "its trial has finished another epoch there"):
            first = stage.wait_for_attempt(2)
        cluster.workers_with(WORKER)[0].kill()
        controller.wait_for("1 of 2 slots: the cluster has room for no more", 120)
        cluster.start_worker(1)
        with recoveries.timed("node killed, none is spare", "after another joined, two slots work again"):
            while len(cluster.workers_with(WORKER)) < 2:
                time.sleep(0.2)
        assert controller.finish(300) == 0, controller.output
    check_results(stage.trials(), count=4)
    check_went_on(stage, first, 2)
    assert all(trial.state is TrialState.COMPLETED for trial in stage.trials())


def test_a_node_stands_still(stage: Stage, cluster: RayCluster, recoveries: Recoveries) -> None:
    """Longer than Ray has patience: its trial goes on elsewhere, and nobody listens to the node when it comes back."""
    with stage.controller(plan(trials=2, slots=2, epochs=EPOCHS, seconds=2.0)) as controller:
        begin(controller)
        node = cluster.workers_with(WORKER)[0]
        node.freeze()
        with recoveries.timed("node stands still", "its trial has finished another epoch elsewhere"):
            number = stage.wait_for_attempt(2)
        node.thaw()
        assert controller.finish(300) == 0, controller.output
    check_results(stage.trials(), count=2)
    check_went_on(stage, number, 2)


def submit_and_wait(shell: Shell, cluster: RayCluster, stage: Stage) -> None:
    """A search as a job, until its first trial is under way."""
    shell.run("submit", "smoke", "--name", NAME, *LONG, "--address", cluster.dashboard)
    stage.wait_for_trials(lambda trials: bool(trials) and len(stage.observations()) > 2, 120)


def check_search(stage: Stage) -> None:
    """Two trials, each with all its epochs."""
    assert stage.search().state is SearchState.COMPLETED
    assert [trial.state for trial in stage.trials()] == [TrialState.COMPLETED] * 2
    for number in (0, 1):
        assert {one.epoch for one in stage.observations(number)} == set(range(1, LONG_EPOCHS + 1))


def test_the_node_of_the_controller_dies(
    stage: Stage, shell: Shell, cluster: RayCluster, recoveries: Recoveries
) -> None:
    """Its job fails, and another job goes on with the search: sent from anywhere, with the search's name."""
    submit_and_wait(shell, cluster, stage)
    (node,) = cluster.workers_with(CONTROLLER)
    node.kill()
    before = len(stage.observations())
    with recoveries.timed("node of the controller killed", "`submit --resume` has brought a trial further"):
        at = ("--address", cluster.dashboard)
        while "is submitted" not in shell.run("submit", "--resume", NAME, *at):
            time.sleep(1)  # until Ray has noticed
        stage.wait_for_trials(lambda _: len(stage.observations()) > before, 120)
    assert "COMPLETED, 2 of 2 trials ended" in shell.run("logs", NAME, "--follow", *at)
    check_search(stage)


def test_the_head_dies_and_comes_back(stage: Stage, shell: Shell, cluster: RayCluster, recoveries: Recoveries) -> None:
    """With its state in Redis: the search goes on meanwhile, and whoever follows its log waits for the head."""
    submit_and_wait(shell, cluster, stage)
    at = ("--address", cluster.dashboard)
    reader = shell.start("logs", NAME, "--follow", *at)
    try:
        read = wait_for(reader, "epoch")
        assert cluster.head is not None
        cluster.head.kill()
        before = len(stage.observations())
        time.sleep(HEAD_AWAY_SECONDS)
        during = len(stage.observations())
        with recoveries.timed("head killed, with Redis", "it is up again"):
            cluster.start_head()
        rest = rest_of(reader)
    finally:
        reader.kill()
        reader.wait()
    assert "COMPLETED, 2 of 2 trials ended" in rest
    assert reader.returncode == 0, rest
    assert during > before, "the workers need no head"
    check_search(stage)
    assert shell.run("logs", NAME, *at) == "".join(read) + rest, "each line once, none lost"
