"""A Ray cluster on this machine: a head without CPUs and workers, with a token, as `deploy/` has it.

Each node is a family of real processes of its own, which can be killed as a machine dies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.network import Cable, NamespacesMissingError, Network
from tests.ports import HOST, free_port

RAY = Path(sys.executable).with_name("ray")
START_SECONDS = 120
START = (str(RAY), "start", "--block")
MEMORY = "--object-store-memory=100000000"
ALONE = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
"""A worker sees its own processes only: a program in it would else take the head, which Ray prefers, for its node."""
OWN_FILES = ("sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh")
"""Two nodes that share Ray's folder take away from each other what they unpack there for a job."""


class Node:
    """`ray start --block` and all that comes of it.

    Args:
        cable: what joins it to the network, where it has one of its own.
    """

    def __init__(self, log: Path, environment: Mapping[str, str], *command: str, cable: Cable | None = None) -> None:
        self.cable = cable
        self._frozen: list[psutil.Process] = []
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        end = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text():
            if time.monotonic() > end or self._process.poll() is not None:
                self.kill()
                raise RuntimeError(f"the node does not start:\n{log.read_text()}")
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """All of the node, workers included; none where it is dead."""
        if self._process.poll() is not None:  # its number may be another's by now
            return []
        try:
            started = psutil.Process(self._process.pid)
            return [started, *started.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def command_lines(self) -> list[str]:
        lines = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                lines.append(" ".join(process.cmdline()))
        return lines

    def run(self, *command: str) -> None:
        """Run a command that sees the node's files, and no other node's."""
        own = f"/proc/{self._process.pid}/ns"
        subprocess.run(["nsenter", f"--mount={own}/mnt", f"--pid={own}/pid_for_children", *command], check=True)

    def kill(self) -> None:
        """As a machine without power: every process at once, with no word to anybody."""
        found = self.processes()
        for process in found:  # none may see another one's end and react
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in {*found, *self.processes()}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """As a machine that nobody reaches: every process stands still, and connections to it stay."""
        self._frozen = self.processes()
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """It goes on as if nothing had happened."""
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class RayCluster:
    """Its head and its workers.

    Args:
        environment: of its nodes.
        redis: where the head keeps its state, as HOST:PORT, so that it can be killed and started again.
        network: what joins the nodes. Without one they share this machine's.
    """

    def __init__(
        self, environment: Mapping[str, str], redis: str | None = None, network: Network | None = None
    ) -> None:
        self._network = network
        self._folder = Path(tempfile.mkdtemp(prefix="mrc-", dir="/tmp"))  # a socket's path may have 107 bytes
        self._ports: set[int] = set()
        self._port, self._dashboard, self._client_port = self._new_port(), self._new_port(), self._new_port()
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(24).hex()}
        """Of a client"""
        path = f"{RAY.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
        self._variables = {**environment, **self.environment, **own}
        if redis is not None:
            self._variables |= {"RAY_REDIS_ADDRESS": redis, "RAY_external_storage_namespace": "test"}
        self._started = 0
        self.head: Node | None = None
        self.workers: list[Node] = []

    @property
    def dashboard(self) -> str:
        """Its URL, which takes jobs."""
        return f"http://{HOST}:{self._dashboard}"

    @property
    def address(self) -> str:
        """For RAY_ADDRESS, on this machine."""
        return f"{self._network.address if self._network else HOST}:{self._port}"

    def start_head(self) -> None:
        """At the same address as before, where it was killed."""
        # By this file, and the workers that name the head, Ray would take it for one that runs still.
        (self._folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        self.head = self._start(
            *START, "--head", f"--port={self._port}", f"--dashboard-port={self._dashboard}", "--num-cpus=0",
            f"--temp-dir={self._folder / 'ray'}", f"--ray-client-server-port={self._client_port}",
            *([f"--node-ip-address={self._network.address}"] if self._network else []),
        )  # fmt: skip

    def start_worker(self, cpus: int) -> Node:
        own = self._folder / f"ray-{self._started}"
        own.mkdir()
        cable = self._network.lay_cable() if self._network else None
        alone = (*(cable.inside if cable else ()), *ALONE, *OWN_FILES, str(own), str(self._folder / "ray"))
        worker = self._start(*alone, *START, f"--address={self.address}", f"--num-cpus={cpus}", cable=cable)
        self.workers.append(worker)
        return worker

    def workers_with(self, mark: str) -> list[Node]:
        """Those with a process whose command line holds `mark`."""
        return [worker for worker in self.workers if any(mark in line for line in worker.command_lines())]

    def close(self) -> None:
        """End all nodes; no change where they have ended."""
        for node in (*reversed(self.workers), self.head):
            if node is not None:
                node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _new_port(self) -> int:
        """One that no other part of the cluster is to have: what is free now may be so twice."""
        while (port := free_port()) in self._ports:
            pass
        self._ports.add(port)
        return port

    def _start(self, *command: str, cable: Cable | None = None) -> Node:
        self._started += 1
        agent = f"--dashboard-agent-listen-port={self._new_port()}"
        log = self._folder / f"node-{self._started}.log"
        return Node(log, self._variables, *command, agent, MEMORY, cable=cable)


@contextmanager
def ray_cluster(
    environment: Mapping[str, str],
    *,
    workers: int = 1,
    cpus: int = 2,
    redis: str | None = None,
    network: Network | None = None,
) -> Iterator[RayCluster]:
    """Up within the context, with so many workers of `cpus` CPUs each; see `RayCluster`."""
    if subprocess.run([*ALONE, *OWN_FILES, "/tmp", "/tmp", "true"], capture_output=True, check=False).returncode:
        raise NamespacesMissingError("process namespaces cannot be made here, which takes Linux and root")
    cluster = RayCluster(environment, redis, network)
    try:
        cluster.start_head()
        for _ in range(workers):
            cluster.start_worker(cpus)
        yield cluster
    finally:
        cluster.close()
