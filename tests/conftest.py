"""The services that tests share. They start when the first test asks for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresMissingError, PostgresServer, find_binaries

REQUIRED = "MIXREC_TEST_REQUIRE_SERVICES"

# Tables for what is no terminal are as wide as they need to be, unless this says otherwise, as it does in the processes
# of pytest-xdist.
os.environ.pop("COLUMNS", None)

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise nohup, and the loss of the terminal


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """Skips the calling test where there is no PostgreSQL; where `REQUIRED` is 1, the test fails instead."""
    try:
        return find_binaries()
    except PostgresMissingError as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{error}; {REQUIRED} says that it must be there")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_postgres(postgres_binaries: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(postgres_binaries)
    yield server
    server.close()


@pytest.fixture
def postgres(shared_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A running server. A test may stop, kill or freeze it: the next one gets it as it should be."""
    yield shared_postgres
    shared_postgres.restore()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database."""
    url = postgres.create_database()
    yield url
    postgres.restore()
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind: a test that takes it runs once on each."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mixrec.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url
