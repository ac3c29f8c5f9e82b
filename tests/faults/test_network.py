"""Cables that are pulled: nothing is lost, and what a node that was cut off still says counts for nothing.

Each node has a network namespace of its own, joined to this machine by a cable. While it is pulled connections stay as
they are, and nobody is told: what is sent is lost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.stage import WORKER, Stage, check_results, plan
from tests.faults.conftest import Recoveries
from tests.faults.test_nodes import EPOCHS, begin, check_went_on
from tests.network import Network, network
from tests.postgres import PostgresServer
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="makes network namespaces"),
]

BRIEF_SECONDS, CUT_SECONDS = 3.0, 20.0
"""TCP tries again for longer than the one; during the other Ray gives connections up, yet not the node"""
EPOCH_SECONDS = 2.0
AS_DEPLOYED = {"HF_HUB_OFFLINE": "1", "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""A node that is cut off waits for the head, and so may come back as one that is taken for dead"""
ENDED_SECONDS = 60.0


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str, net: Network) -> Iterator[RayCluster]:
    """Three workers of one CPU, one more than the slots need. The database is the controller's, at the head."""
    home = {"MIXREC_HOME": str(tmp_path / "home"), "MIXREC_DATABASE_URL": postgres_url, **AS_DEPLOYED}
    with ray_cluster(home, workers=3, cpus=1, network=net) as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path, postgres_url: str, cluster: RayCluster) -> Stage:
    return Stage(tmp_path / "home", postgres_url, environment={"RAY_ADDRESS": cluster.address, **cluster.environment})


def epochs_of(stage: Stage) -> list[int]:
    """How many are recorded of each of two trials."""
    return [len(stage.observations(number)) for number in (0, 1)]


def check_one_was_lost(stage: Stage, number: int) -> None:
    """Trial `number`, once; the other one has noticed nothing."""
    check_results(stage.trials(), count=2)
    check_went_on(stage, number, 2)
    lost, other = stage.trials()[number], stage.trials()[1 - number]
    assert (lost.attempt, lost.losses) == (2, 1)
    assert (other.attempt, other.losses) == (1, 0)


def test_a_node_is_cut_off_for_a_while(stage: Stage, cluster: RayCluster, recoveries: Recoveries) -> None:
    """For a moment nobody notices. After 20 s its trial goes on, or is tried again where Ray has given its connection
    up; the node it has not missed."""
    with stage.controller(plan(trials=2, slots=2, epochs=EPOCHS, seconds=EPOCH_SECONDS)) as controller:
        begin(controller)
        node = cluster.workers_with(WORKER)[0]
        assert node.cable is not None
        node.cable.pull()
        time.sleep(BRIEF_SECONDS)
        node.cable.plug()
        before = epochs_of(stage)
        with recoveries.timed(f"node cut off for {BRIEF_SECONDS:.0f} s", "both trials have finished another epoch"):
            stage.wait_for_trials(lambda _: all(now > then for now, then in zip(epochs_of(stage), before, strict=True)))
        assert [trial.attempt for trial in stage.trials()] == [1, 1]

        before = epochs_of(stage)
        node.cable.pull()
        time.sleep(CUT_SECONDS)
        seen = epochs_of(stage)
        during = [now - then for now, then in zip(seen, before, strict=True)]
        node.cable.plug()
        assert min(during) <= 1, "the cut is one"
        assert max(during) >= CUT_SECONDS / EPOCH_SECONDS / 2, "the other slot notices nothing"
        number = during.index(min(during))
        with recoveries.timed(f"node cut off for {CUT_SECONDS:.0f} s", "its trial has finished another epoch"):
            stage.wait_for_trials(lambda _: epochs_of(stage)[number] > seen[number])
        assert controller.finish(300) == 0, controller.output
    attempt = stage.trials()[number].attempt
    if attempt == 1:  # what had been sent was sent again
        check_results(stage.trials(), count=2)
        assert [trial.losses for trial in stage.trials()] == [0, 0]
    else:
        check_one_was_lost(stage, number)


def test_a_node_is_cut_off_for_longer_than_ray_waits(stage: Stage, cluster: RayCluster, recoveries: Recoveries) -> None:
    """Its trial goes on elsewhere. Once it is back it ends, and counts for nothing."""
    with stage.controller(plan(trials=2, slots=2, epochs=EPOCHS, seconds=EPOCH_SECONDS)) as controller:
        begin(controller)
        node = cluster.workers_with(WORKER)[0]
        assert node.cable is not None
        node.cable.pull()
        with recoveries.timed("node cut off for good", "its trial has finished another epoch elsewhere"):
            number = stage.wait_for_attempt(2)
        assert node.processes(), "it is there still, and waits for the head"
        of_before = [one for one in stage.observations(number) if one.attempt == 1]
        node.cable.plug()
        with recoveries.timed("node back that was given up", "it has ended by itself"):
            end = time.monotonic() + ENDED_SECONDS
            while node.processes():
                assert time.monotonic() < end, node.command_lines()
                time.sleep(0.2)
        assert controller.finish(300) == 0, controller.output
    check_one_was_lost(stage, number)
    assert [one for one in stage.observations(number) if one.attempt == 1] == of_before, "it was not listened to"


def test_the_controller_is_cut_off_from_the_database(
    net: Network, postgres_binaries: Path, tmp_path: Path, recoveries: Recoveries
) -> None:
    """As a database that is away: trials go on, and what they report is recorded afterwards."""
    with closing(PostgresServer(postgres_binaries, net.address)) as postgres:
        cable = net.lay_cable()
        stage = Stage(tmp_path / "home", postgres.create_database(), inside=cable.inside)
        with stage.controller(plan(trials=4, slots=2, epochs=10, seconds=1.0)) as controller:
            controller.wait_for("trial 0  .*epoch 2/", 120)
            cable.pull()
            time.sleep(CUT_SECONDS)
            assert "the database does not answer" in controller.output
            seen = len(stage.observations())
            cable.plug()
            fault = f"controller cut off from the database for {CUT_SECONDS:.0f} s"
            with recoveries.timed(fault, "what trials did meanwhile is recorded"):
                stage.wait_for_trials(lambda _: len(stage.observations()) > seen)
            assert controller.finish() == 0, controller.output
        check_results(stage.trials(), count=4)
        assert {trial.attempt for trial in stage.trials()} == {1}
        for trial in stage.trials():
            assert [one.epoch for one in stage.observations(trial.number)] == list(range(1, 11))
