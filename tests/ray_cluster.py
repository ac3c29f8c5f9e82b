"""A Ray cluster of two nodes on this machine: a head without CPUs and a worker, with a token, as `deploy/` has it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import HOST, free_port

RAY = Path(sys.executable).with_name("ray")
START_SECONDS = 60


@dataclass(frozen=True)
class RayCluster:
    dashboard: str
    """Its URL, which takes jobs"""
    environment: dict[str, str]
    """Of a client"""


@contextmanager
def ray_cluster(environment: Mapping[str, str], *, cpus: int = 2) -> Iterator[RayCluster]:
    """Up within the context; `environment` is that of its nodes."""
    folder = Path(tempfile.mkdtemp(prefix="mrc-", dir="/tmp"))  # a socket's path may have 107 bytes
    client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(24).hex()}
    path = f"{RAY.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    variables = {**environment, **client, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    port, dashboard = free_port(), free_port()
    nodes: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> None:
        command = [str(RAY), "start", "--block", f"--dashboard-agent-listen-port={free_port()}", *options]
        with (folder / f"node-{len(nodes)}.log").open("wb") as log:
            nodes.append(
                subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            )

    memory = "--object-store-memory=100000000"
    try:
        start(
            "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=0", memory,
            f"--temp-dir={folder / 'ray'}", f"--ray-client-server-port={free_port()}",
        )  # fmt: skip
        _wait_for("node-0.log", folder)
        start(f"--address={HOST}:{port}", f"--num-cpus={cpus}", memory)
        _wait_for("node-1.log", folder)
        yield RayCluster(f"http://{HOST}:{dashboard}", client)
    finally:
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(timeout=START_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(log: str, folder: Path) -> None:
    """Until the node says that it is up."""
    end = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in (folder / log).read_text():
        if time.monotonic() > end:
            raise TimeoutError((folder / log).read_text())
        time.sleep(0.2)
