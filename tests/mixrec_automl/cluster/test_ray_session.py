"""An address of a Ray cluster is asked before Ray is, which would try for minutes."""

from __future__ import annotations

import socket

import pytest

from mixrec_automl.cluster.ray_session import ray_session, refuse_a_silent_port
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


@pytest.mark.parametrize("address", ["auto", "local", "head"])
def test_words_are_left_to_ray(address: str) -> None:
    refuse_a_silent_port(address)
