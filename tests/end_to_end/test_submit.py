"""`submit` and `logs` on a cluster of two nodes with a token and PostgreSQL: by name, once, away from the head."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mixrec_automl.store.records import SearchState
from mixrec_automl.store.repository import Repository
from tests.end_to_end.shell import Shell
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Ray's processes are ended by their group"),
]

SHORT = ("--set", "search.trials=2", "--set", "search.initial_trials=2", "--set", "cluster.slots=1")

JOBS = """
import json, sys
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_nodes

found = JobSubmissionClient(sys.argv[1]).list_jobs()
jobs = {job.submission_id: [job.driver_node_id, str(job)] for job in found}
print(json.dumps([jobs, [node.node_id for node in list_nodes(address=sys.argv[1]) if node.is_head_node]]))
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """On the client's side: it knows neither database nor home of the cluster."""
    return Shell(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def database_url(shared_postgres: PostgresServer) -> str:
    return shared_postgres.create_database()


@pytest.fixture(scope="module")
def cluster(shell: Shell, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    home = tmp_path_factory.mktemp("cluster")
    nodes = {"MIXREC_HOME": str(home), "MIXREC_DATABASE_URL": database_url, "HF_HUB_OFFLINE": "1"}
    with ray_cluster({**shell.environment, **nodes}) as made:
        shell.environment.update(made.environment)
        yield made


def test_a_search_is_submitted_once_and_read_by_name(shell: Shell, cluster: RayCluster, database_url: str) -> None:
    at = ("--address", cluster.dashboard)
    first = shell.run("submit", "smoke", "--name", "first", *SHORT, *at)
    assert first.splitlines() == [
        "first is submitted: job mixrec-first-1",
        f"what it prints: mixrec-automl logs first --follow --address {cluster.dashboard}",
    ]
    assert "first runs already: job mixrec-first-1" in shell.run("submit", "smoke", "--name", "first", *SHORT, *at)
    followed = shell.run("logs", "first", "--follow", *at)
    assert "search first: COMPLETED, 2 of 2 trials ended" in followed
    assert shell.run("logs", "first", *at) == followed, "each line once, none lost"
    assert Repository.open(database_url).search("first").state is SearchState.COMPLETED

    again = shell.run("submit", "smoke", "--name", "first", *SHORT, *at, code=2)
    assert "error: search 'first' was run before: job mixrec-first-1 succeeded" in again
    resumed = shell.run("submit", "--resume", "first", "--follow", *at, code=1)
    assert "first is submitted: job mixrec-first-2" in resumed
    assert "search 'first' is complete" in resumed
    assert "job mixrec-first-2 failed" in resumed

    # In a process of its own: Ray reads the token's variables once, when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", JOBS, cluster.dashboard],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    jobs, heads = json.loads(done.stdout)
    assert set(jobs) == {"mixrec-first-1", "mixrec-first-2"}
    told = "".join(text for _, text in jobs.values())
    assert all(secret not in told for secret in (database_url, cluster.environment["RAY_AUTH_TOKEN"]))
    assert heads
    assert {node for node, _ in jobs.values()}.isdisjoint({*heads, None}), f"{jobs} on {heads}: not on the head"


def test_what_is_wrong_is_one_line(shell: Shell, cluster: RayCluster) -> None:
    at = ("--address", cluster.dashboard)
    assert "has no job of a search named 'nobody'" in shell.run("logs", "nobody", *at, code=2)
    assert "give either a configuration" in shell.run("submit", *at, code=2)
    assert "give either a configuration" in shell.run("submit", "smoke", "--resume", "first", *at, code=2)
    away = f"http://127.0.0.1:{free_port()}"
    assert f"no dashboard of a Ray cluster answers at {away}" in shell.run("logs", "first", "--address", away, code=2)
    shell.environment["RAY_AUTH_TOKEN"] = "0" * 48
    refused = shell.run("logs", "first", *at, code=2)
    assert refused.strip() == (
        f"error: the Ray cluster at {cluster.dashboard} asks for its token: "
        f"put it into RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token "
        f"(in a container of deploy/, `with-secrets` before the command does so)"
    )
