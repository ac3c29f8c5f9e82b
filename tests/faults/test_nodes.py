"""Machines of a cluster that die or stand still: nothing finished is lost, and what ran goes on from its checkpoint.

Each node is a family of processes on this machine; all share its disk, as the nodes of a cluster share a storage.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixrec_automl.store.records import TrialState
from tests.end_to_end.stage import Controller, Stage, check_results, plan
from tests.faults.conftest import Recoveries
from tests.ray_cluster import Node, RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds Ray's processes in /proc"),
]

EPOCHS = 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """Three workers of one CPU, for searches with two slots."""
    with ray_cluster({"MIXREC_HOME": str(tmp_path / "home")}, workers=3, cpus=1) as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path, postgres_url: str, cluster: RayCluster) -> Stage:
    return Stage(tmp_path / "home", postgres_url, environment={"RAY_ADDRESS": cluster.address, **cluster.environment})


def busy(stage: Stage, cluster: RayCluster) -> list[Node]:
    """The nodes on which the slots live."""
    pids = stage.workers()
    return [node for node in cluster.workers if any(node.runs(pid) for pid in pids)]


def wait_for_attempt(stage: Stage, attempt: int) -> int:
    """Until some trial has finished an epoch in its `attempt`-th; its number."""
    stage.wait_for_trials(lambda trials: any(trial.attempt == attempt for trial in trials), 120)
    (number,) = (trial.number for trial in stage.trials() if trial.attempt == attempt)
    deadline = time.monotonic() + 120
    while not any(seen.attempt == attempt for seen in stage.observations(number)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return number


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
        busy(stage, cluster)[0].kill()
        with recoveries.timed("node killed, one is spare", "its trial has finished another epoch there"):
            first = wait_for_attempt(stage, 2)
        busy(stage, cluster)[0].kill()
        controller.wait_for("1 of 2 slots wait", 120)
        cluster.start_worker(1)
        with recoveries.timed("node killed, none is spare", "after another joined, two slots work again"):
            while len(busy(stage, cluster)) < 2:
                time.sleep(0.2)
        assert controller.finish(300) == 0, controller.output
    check_results(stage.trials(), count=4)
    check_went_on(stage, first, 2)
    assert all(trial.state is TrialState.COMPLETED for trial in stage.trials())
