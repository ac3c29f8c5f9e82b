"""An address of a Ray cluster is asked before Ray is, which would try for minutes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.exceptions import AuthenticationError

from mixrec_automl.cluster import ray_session as module
from mixrec_automl.cluster.ray_session import ray_session, refuse_a_silent_port, room
from tests.ports import free_port
from trainers.errors import UserError


@pytest.mark.parametrize("shape", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_a_port_that_nobody_listens_to_is_refused_by_its_address(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = shape.format(free_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    told = f"no Ray cluster answers at RAY_ADDRESS={address}: Connection refused"
    with pytest.raises(UserError, match=told), ray_session():
        pass


@pytest.mark.parametrize(
    ("family", "host", "shape"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"),
        (socket.AF_INET, "127.0.0.1", "ray://127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "[::1]:{}"),
    ],
)
def test_one_that_answers_is_left_to_ray(family: socket.AddressFamily, host: str, shape: str) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        server.listen()
        refuse_a_silent_port(shape.format(server.getsockname()[1]))


def test_a_token_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise AuthenticationError("unauthenticated")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(UserError, match="asks for its token: put it into RAY_AUTH_TOKEN"), ray_session():
        pytest.fail("it went on")


@pytest.mark.parametrize("address", ["auto", "local", "head"])
def test_words_are_left_to_ray(address: str) -> None:
    refuse_a_silent_port(address)


GUEST = """
import sys
from ray._raylet import GcsClient

print("nodes:", len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))
"""
HOST_OF_A_GUEST = f"""
import os, subprocess, sys
import ray
from mixrec_automl.cluster.ray_session import ray_session

with ray_session():
    address = ray.get_runtime_context().gcs_address
    stranger = {{name: value for name, value in os.environ.items() if not name.startswith("RAY_")}}
    stranger["HOME"] = sys.argv[1]
    for environment in (os.environ, stranger):
        done = subprocess.run(
            [sys.executable, "-c", {GUEST!r}, address], env=environment, capture_output=True, text=True
        )
        print(done.returncode, done.stdout, done.stderr)
"""


@pytest.mark.end_to_end
def test_ray_of_a_command_of_ours_lets_nobody_else_in(tmp_path: Path) -> None:
    """It listens beyond this machine, as Ray does, and asks for a token that the user alone can read."""
    (tmp_path / "home").mkdir()
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", HOST_OF_A_GUEST, str(tmp_path / "home")], env=own, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    ours, _, stranger = done.stdout.partition("\n")
    assert ours.startswith("0 nodes: 1"), done.stdout
    assert "1 " in stranger, done.stdout
    assert "AuthenticationError" in stranger


@pytest.mark.parametrize(
    ("cpus", "gpus", "fit"),
    [(1, 0, 24), (4, 0, 6), (1, 0.4, 4), (1, 0.6, 2), (1, 0.25, 8), (1, 1, 2), (1, 2, 1), (9, 1, 1)],
)
def test_a_gpu_has_room_for_whole_processes(
    monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float, fit: int
) -> None:
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}]
    monkeypatch.setattr(module, "_resources", lambda: nodes)
    assert room(cpus, gpus) == fit
