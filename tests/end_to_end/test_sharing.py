"""Two searches that are submitted to one cluster: the second one gets half of it while the first one runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mixrec_automl.store.records import SearchState, TrialState
from mixrec_automl.store.repository import Repository
from tests.end_to_end.shell import Shell, rest_of, wait_for
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Ray's processes are ended by their group"),
]

EPOCHS = {"long": 500, "short": 40}
TRIALS = {"long": 2, "short": 3}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """On the side of a client whose user is ada; nobody is of that name on the cluster."""
    made = Shell(tmp_path)
    made.environment["LOGNAME"] = "ada"
    return made


@pytest.fixture
def cluster(shell: Shell, postgres_url: str, tmp_path: Path) -> Iterator[RayCluster]:
    """Two CPUs: as many as each of the searches asks for."""
    nodes = {"MIXREC_HOME": str(tmp_path / "cluster"), "MIXREC_DATABASE_URL": postgres_url, "HF_HUB_OFFLINE": "1"}
    with ray_cluster({**shell.environment, **nodes, "LOGNAME": "root"}, cpus=2) as made:
        shell.environment.update(made.environment)
        yield made


@pytest.fixture
def repository(postgres_url: str) -> Iterator[Repository]:
    with closing(Repository.open(postgres_url)) as opened:
        yield opened


def submit(shell: Shell, cluster: RayCluster, name: str) -> None:
    budget = {
        "search.trials": TRIALS[name],
        "search.initial_trials": TRIALS[name],
        "cluster.slots": 2,
        "training.epochs": EPOCHS[name],
    }
    options = [word for key, value in budget.items() for word in ("--set", f"{key}={value}")]
    shell.run("submit", "smoke", "--name", name, *options, "--address", cluster.dashboard)


def wait_for_running(repository: Repository, name: str, trials: int, seconds: float = 240) -> None:
    """Until so many trials of the search run, and no more, and have each finished an epoch."""
    end = time.monotonic() + seconds
    while True:
        if name in {search.name for search in repository.searches()}:
            running = [trial for trial in repository.trials(name) if trial.state is TrialState.RUNNING]
            began = {(one.trial, one.attempt) for one in repository.observations(name)}
            if len(running) == trials and all((trial.number, trial.attempt) in began for trial in running):
                return
        assert time.monotonic() < end, f"{name} does not come to {trials} running trials"
        time.sleep(0.1)


@contextmanager
def running(shell: Shell, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = shell.start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_search_gets_its_share_and_neither_loses_a_trial(
    shell: Shell, cluster: RayCluster, repository: Repository, postgres_url: str
) -> None:
    submit(shell, cluster, "long")
    wait_for_running(repository, "long", 2)
    submit(shell, cluster, "short")
    wait_for_running(repository, "short", 1)
    assert repository.search("long").state is SearchState.RUNNING
    assert sum(trial.state is TrialState.RUNNING for trial in repository.trials("long")) == 1

    shell.environment["MIXREC_DATABASE_URL"] = postgres_url  # all that a client needs to look on
    with running(shell, "watch", "short") as watching:
        assert "1 of 2 slots: shares the cluster with short" in shell.run("show", "long")
        wait_for(watching, "1 of 2 slots: shares the cluster with long")
        rest = rest_of(watching)
    assert watching.returncode == 0, rest
    assert "search short: COMPLETED, 3 of 3 trials ended" in rest
    wait_for_running(repository, "long", 2)

    with running(shell, "logs", "long", "--follow", "--address", cluster.dashboard) as following:
        told = rest_of(following)
    assert following.returncode == 0, told
    assert "search long: COMPLETED, 2 of 2 trials ended" in told
    assert "1 of 2 slots: shares the cluster with short\n" in told
    assert "all slots that it can use are its own again\n" in told
    for name in ("long", "short"):
        trials = repository.trials(name)
        assert [(trial.state, trial.losses) for trial in trials] == [(TrialState.COMPLETED, 0)] * TRIALS[name]
        for trial in trials:
            seen = [one.epoch for one in repository.observations(name, trial.number)]
            assert sorted(seen) == list(range(1, EPOCHS[name] + 1)), "each epoch was trained once"
    listed = json.loads(shell.run("searches", "--json"))
    assert {(one["name"], one["owner"], one["priority"]) for one in listed} == {("long", "ada", 0), ("short", "ada", 0)}
    assert os.environ.get("LOGNAME") != "ada"
