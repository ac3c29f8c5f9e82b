"""Ray's dashboard as a user meets it where it is not as it should be; jobs themselves are in the end-to-end tests."""

from __future__ import annotations

import socket
import time

import pytest

from mixrec_automl.cluster import jobs
from mixrec_automl.cluster.jobs import Jobs
from trainers.errors import UserError


def test_a_dashboard_that_stands_still_is_not_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel takes the connection, and nobody answers."""
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address, began = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        with pytest.raises(UserError, match=f"no dashboard of a Ray cluster answers at {address}"):
            Jobs(address)
    assert time.monotonic() - began < 20


def test_what_is_no_address_is_told() -> None:
    with pytest.raises(UserError, match="give it as http://HOST:8265"):
        Jobs("ray://head:10001")
