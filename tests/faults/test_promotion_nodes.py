"""Machines that die under a promotion, and come back: it goes on from its last checkpoint on those that are there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.shell import Shell, rest_of, wait_for
from tests.end_to_end.stage import WORKER
from tests.faults.conftest import Recoveries
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds Ray's processes in /proc"),
]

EPOCHS = 400
SETTINGS = (
    "--set", "search.trials=1", "--set", "search.initial_trials=1", "--set", "cluster.slots=1",
    "--set", f"promotion.epochs={EPOCHS}", "--set", "promotion.workers=2", "--set", "promotion.fewest_workers=1",
)  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str) -> Iterator[RayCluster]:
    """Three workers of one CPU: two for a promotion, and a spare one."""
    home = {"MIXREC_HOME": str(tmp_path / "home"), "MIXREC_DATABASE_URL": postgres_url, "HF_HUB_OFFLINE": "1"}
    with ray_cluster(home, workers=3, cpus=1) as made:
        yield made


@pytest.fixture
def shell(tmp_path: Path, postgres_url: str, cluster: RayCluster) -> Shell:
    made = Shell(tmp_path)
    made.environment |= {**cluster.environment, "RAY_ADDRESS": cluster.address, "MIXREC_DATABASE_URL": postgres_url}
    return made


def test_nodes_die_until_one_is_left_and_one_comes_back(
    shell: Shell, cluster: RayCluster, recoveries: Recoveries
) -> None:
    """Two workers train; a spare node takes the place of the first that dies; for the second there is none at first."""
    shell.run("search", "smoke", "--name", "s", *SETTINGS)
    promotion = shell.start("promote", "s")
    try:
        lines = wait_for(promotion, "epoch 3/")
        for what, is_left in (("one is spare", 2), ("none is spare", 1)):
            cluster.workers_with(WORKER)[0].kill()
            with recoveries.timed(f"node of a promotion killed, {what}", "it has finished another epoch"):
                lines += wait_for(promotion, "goes on after its last whole epoch")
                lines += wait_for(promotion, "epoch ")
            assert len(cluster.workers_with(WORKER)) == is_left
        cluster.start_worker(1)
        with recoveries.timed("node of a promotion comes back", "it has finished an epoch with all its processes"):
            lines += wait_for(promotion, "there is room for more processes")
            lines += wait_for(promotion, "epoch ")
        assert len(cluster.workers_with(WORKER)) == 2
        rest = rest_of(promotion)
    finally:
        promotion.kill()
        promotion.wait()
    assert promotion.returncode == 0, rest
    assert "mixrec-walks version 1" in rest
    epochs = [int(number) for number in re.findall(rf"^epoch (\d+)/{EPOCHS}:", "".join(lines) + rest, re.MULTILINE)]
    assert epochs == sorted(epochs), "it never began anew"
    assert epochs[-1] == EPOCHS
