"""All of the service on a cluster of processes on this machine, with a node that dies: `make cluster-demo`.

PostgreSQL, MLflow and a Ray head with two worker nodes come up; a search is submitted; one of its nodes is killed in
the middle, and another one joins; the winner is promoted by two processes, served and asked; all of it is taken down.
A table says what survived. Data and backbone are made up, so the scores mean nothing.

Exit code: 0 where everything survived, 1 where something did not, 2 where this machine cannot show it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mixrec_automl.store.records import TrialState
from tests.end_to_end.drive import NAME
from tests.end_to_end.shell import Shell, rest_of, wait_for
from tests.end_to_end.stage import WORKER, Stage
from tests.mlflow_server import MlflowServer
from tests.network import NamespacesMissingError
from tests.ports import HOST, free_port
from tests.postgres import PostgresServer
from tests.ray_cluster import RayCluster, ray_cluster

TRIALS, SLOTS, EPOCHS = 4, 2, 60
SETTINGS = {
    "search.trials": TRIALS,
    "search.initial_trials": TRIALS,
    "cluster.slots": SLOTS,
    "training.epochs": EPOCHS,
    "promotion.epochs": 20,
}
EXIT_ERROR = 2
PATIENCE = 240.0
QUESTION = {"texts": ["a walk in the north"], "k": 3}


class Demo:
    """What is up, and the rows of the closing table."""

    def __init__(self, console: Console) -> None:
        self.console, self.is_whole = console, True
        self._table = Table("what", "survived", title="what survived", title_justify="left")
        self._began = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        with self.console.status(what):
            yield
        self.console.print(f"{self.seconds:5.0f} s  {what}: {time.monotonic() - began:.0f} s", highlight=False)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def row(self, what: str, found: str, is_right: bool) -> None:
        self.is_whole &= is_right
        self._table.add_row(what, f"{'yes' if is_right else 'NO'}: {found}")

    def close(self) -> None:
        self.console.print(self._table)
        self.console.print(f"{self.seconds:.0f} s", highlight=False)


def wait_until(what: str, is_so: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} for {PATIENCE:.0f} s")
        time.sleep(0.2)


def search_with_a_death(demo: Demo, cluster: RayCluster, client: Shell, stage: Stage) -> None:
    at, observed = ("--address", cluster.dashboard), stage.observations
    options = [text for name, value in SETTINGS.items() for text in ("--set", f"{name}={value}")]
    with demo.step("a search is submitted; both nodes train"):
        client.run("submit", "smoke", "--name", NAME, *options, *at)
        wait_until("nothing is proposed", stage.trials)
        third = EPOCHS // 3
        wait_until("too little is trained", lambda: {one.trial for one in observed() if one.epoch > third} >= {0, 1})
    controller = cluster.workers_with(f"--name {NAME}")
    victim = next(node for node in cluster.workers_with(WORKER) if node not in controller)
    before = observed()
    victim.kill()
    with demo.step("a worker node is killed; another one joins; its trial goes on"):
        cluster.start_worker(1)
        wait_until("nothing goes on", lambda: any(one.attempt > 1 for one in observed()))
    with demo.step("the search comes to its end"):
        told = client.run("logs", NAME, "--follow", *at)
    search, trials, observations = stage.search(), stage.trials(), observed()
    completed = sum(trial.state is TrialState.COMPLETED for trial in trials)
    demo.row("the search", f"{search.state.value}, its log can be read", f"{TRIALS} of {TRIALS} trials ended" in told)
    demo.row("its trials", f"{completed} of {TRIALS} completed", completed == len(trials) == TRIALS)
    kept = sum(one in observations for one in before)
    demo.row("epochs recorded before the death", f"{kept} of {len(before)}", kept == len(before))
    again = sorted({one.trial for one in observations if one.attempt > 1})
    firsts = {
        trial: min(one.epoch for one in observations if one.trial == trial and one.attempt > 1) for trial in again
    }
    went_on = ", ".join(f"trial {trial} from epoch {epoch} of {EPOCHS}" for trial, epoch in firsts.items())
    demo.row("what the dead node had trained", went_on, bool(firsts) and min(firsts.values()) > 1)
    every = {(trial, epoch) for trial in range(TRIALS) for epoch in range(1, EPOCHS + 1)}
    demo.row("every epoch of every trial", "no gap", {(one.trial, one.epoch) for one in observations} == every)


def promote(demo: Demo, cluster: RayCluster, shell: Shell) -> str:
    """The registered model's reference."""
    with demo.step("the winner is promoted by two processes"):
        process = shell.start("promote", NAME, "--workers", "2")
        try:
            lines = wait_for(process, "epoch 1/")
            nodes = len(cluster.workers_with(WORKER))
            output = "".join(lines) + rest_of(process)
        finally:
            process.kill()
            process.wait()
    found = re.search(r"^(mixrec-\S+) version (\d+) is (now the champion|registered)", output, re.MULTILINE)
    if process.returncode != 0 or found is None:
        raise RuntimeError(output)
    demo.row("the promotion", f"{found[0]}, trained on {nodes} nodes", nodes == 2)
    return f"models:/{found[1]}@champion" if "now" in found[3] else f"models:/{found[1]}/{found[2]}"


def serve(demo: Demo, shell: Shell, model: str) -> None:
    port = free_port()
    process = shell.start("serve", model, "--port", str(port))
    try:
        with demo.step("it is served"):
            wait_for(process, "/recommend")
        request = urllib.request.Request(
            f"http://{HOST}:{port}/recommend", json.dumps(QUESTION).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = json.load(answer)
        items = [one["item"] for one in body["recommendations"]]
        demo.row("the service", f"{answer.status}, {len(items)} items after a text", len(items) == QUESTION["k"])
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    demo = Demo(Console())
    folder = Path(tempfile.mkdtemp(prefix="mixrec-demo-"))
    client = Shell(folder / "client")  # knows the cluster's address and token, and neither database nor home
    client.folder.mkdir()
    try:
        with ExitStack() as up:
            with demo.step("PostgreSQL and MLflow"):
                postgres = up.enter_context(closing(PostgresServer()))
                postgres.start()
                server = MlflowServer(folder / "mlflow", postgres.create_database())
                up.callback(server.kill)
                server.start()
            stage = Stage(folder / "home", postgres.create_database(), server.uri)
            services = {
                "MIXREC_HOME": str(stage.home),
                "MIXREC_DATABASE_URL": stage.database_url,
                "MLFLOW_TRACKING_URI": stage.tracking_uri,
            }
            with demo.step("a Ray head and two worker nodes"):
                nodes = {**client.environment, **services}
                cluster = up.enter_context(ray_cluster(nodes, workers=SLOTS, cpus=1))
            client.environment.update(cluster.environment)
            search_with_a_death(demo, cluster, client, stage)
            inside = Shell(folder / "inside")  # as in a container of the cluster
            inside.folder.mkdir()
            inside.environment.update({**services, **cluster.environment, "RAY_ADDRESS": cluster.address})
            serve(demo, inside, promote(demo, cluster, inside))
            with demo.step("all of it is taken down"):
                up.close()
        left = stage.left_behind(30)
        demo.row("this machine", f"{len(left)} processes left behind", not left)
    except NamespacesMissingError as error:
        demo.console.print(f"error: {error}")
        return EXIT_ERROR
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    demo.close()
    return 0 if demo.is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
