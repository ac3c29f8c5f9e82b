"""What only a server can do to the store: it ends sessions, crashes, stands still, and waits for clients that do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

import psycopg
import pytest
from sqlalchemy import event, text

from mixrec_automl.lease import LEASE_SECONDS
from mixrec_automl.store import postgres as bounds
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.records import Lease, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from tests.mixrec_automl.store.writing import added, started, writer_of
from tests.postgres import SETTINGS, PostgresServer
from trainers.errors import UserError

IN_USE = (bounds.IDLE_SECONDS, bounds.LOCK_SECONDS, bounds.SILENT_SECONDS)
CONNECT, IDLE, LOCK, SILENT = 2, 1, 2, 3
"""Seconds of the waits in these tests; two is the least that libpq takes for a connection."""
SLACK = 4
"""What a busy machine may add"""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not how long a transaction may stand still: a test on a busy machine does, for a second and more.
    monkeypatch.setattr(bounds, "CONNECT_SECONDS", CONNECT)
    monkeypatch.setattr(bounds, "LOCK_SECONDS", LOCK)
    monkeypatch.setattr(bounds, "SILENT_SECONDS", SILENT)


@pytest.fixture
def repository(postgres_url: str) -> Iterator[Repository]:
    repository = Repository.open(postgres_url)
    yield repository
    repository.close()


@pytest.fixture
def writer(repository: Repository) -> SearchWriter:
    """Of a search with a trial that runs and one that waits."""
    repository.create_search("first", {}, "abc")
    writer = writer_of(repository)
    started(writer, 0)
    added(writer, 1)
    return writer


@contextmanager
def within(least: float, most: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began < most


def content(repository: Repository) -> object:
    return repository.search("first"), repository.trials("first"), repository.observations("first")


def complete_with(accident: Callable[[], object], writer: SearchWriter) -> None:
    """Writes one half of a trial's result, then lets something happen, then writes the other half."""
    with writer._changing() as change:
        change.end(change.trial(0), 1, TrialState.COMPLETED)
        change.session.flush()
        accident()
        change.trial(0).mrr = 0.1


def test_each_wait_ends_before_the_one_that_relies_on_it() -> None:
    idle, lock, silent = IN_USE
    assert idle < lock < silent
    assert idle < LEASE_SECONDS, "a lease that ran out is not kept by a lock"


@pytest.mark.usefixtures("writer")
def test_moments_are_in_utc_where_the_server_lives_elsewhere(repository: Repository) -> None:
    with repository._transactions.reading() as session:
        assert session.scalar(text("SHOW timezone")) == SETTINGS["timezone"]
        assert str(session.scalar(text("SELECT CAST(created_at AS text) FROM search"))).endswith("+05:45")
    created = repository.search("first").created_at
    assert created.tzinfo is UTC
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_session_that_the_server_ended_is_replaced(
    postgres: PostgresServer, postgres_url: str, repository: Repository, writer: SearchWriter
) -> None:
    assert postgres.terminate_connections(postgres_url) > 0
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    assert len(repository.observations("first")) == 1


def test_a_session_that_ends_in_the_middle_of_a_write_leaves_nothing_of_it(
    postgres: PostgresServer, postgres_url: str, repository: Repository, writer: SearchWriter
) -> None:
    before = content(repository)
    with pytest.raises(DatabaseUnavailableError, match="terminating connection"):
        complete_with(lambda: postgres.terminate_connections(postgres_url), writer)
    assert content(repository) == before
    assert writer.complete_trial(0, 1, 0.1, 0.01).state is TrialState.COMPLETED


def test_a_crash_is_an_outage_until_the_server_is_back(
    postgres: PostgresServer, repository: Repository, writer: SearchWriter
) -> None:
    before = content(repository)
    postgres.kill()
    for call in (lambda: writer.record_epoch(0, 1, 1, {}), lambda: content(repository)):
        with pytest.raises(DatabaseUnavailableError, match="refused"):
            call()
    postgres.start()
    assert content(repository) == before
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    assert len(repository.observations("first")) == 1


def test_a_crash_between_two_calls_goes_unnoticed(
    postgres: PostgresServer, repository: Repository, writer: SearchWriter
) -> None:
    postgres.kill()
    postgres.start()
    assert writer.complete_trial(0, 1, 0.1, 0.01) == repository.trials("first")[0]


def test_a_crash_in_the_middle_of_a_write_leaves_nothing_of_it(
    postgres: PostgresServer, repository: Repository, writer: SearchWriter
) -> None:
    before = content(repository)
    with pytest.raises(DatabaseUnavailableError):
        complete_with(postgres.kill, writer)
    postgres.start()
    assert content(repository) == before
    assert writer.complete_trial(0, 1, 0.1, 0.01).state is TrialState.COMPLETED


def test_a_server_that_stands_still_is_an_outage_after_a_while(
    postgres: PostgresServer, repository: Repository, writer: SearchWriter
) -> None:
    before = content(repository)
    postgres.freeze()
    with within(SILENT, SILENT + CONNECT + SLACK), pytest.raises(DatabaseUnavailableError, match="timeout"):
        writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    with within(0, CONNECT + SLACK), pytest.raises(DatabaseUnavailableError, match="timeout"):
        repository.trials("first")
    postgres.thaw()
    assert content(repository) == before
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    assert len(repository.observations("first")) == 1


def test_a_server_that_stands_still_in_the_middle_of_a_write_leaves_nothing_of_it(
    postgres: PostgresServer, repository: Repository, writer: SearchWriter
) -> None:
    before = content(repository)

    with within(SILENT, SILENT + SLACK), pytest.raises(DatabaseUnavailableError, match=f"silent for {SILENT} seconds"):
        complete_with(postgres.freeze, writer)
    postgres.thaw()
    assert content(repository) == before


def test_a_server_that_stands_still_over_a_commit_may_make_it_and_it_can_be_repeated(
    postgres: PostgresServer, repository: Repository, writer: SearchWriter
) -> None:
    event.listen(repository._transactions._engine, "commit", lambda _: postgres.freeze(), once=True)
    with within(SILENT, SILENT + SLACK), pytest.raises(DatabaseUnavailableError, match=f"silent for {SILENT} seconds"):
        writer.complete_trial(0, 1, 0.1, 0.01)
    postgres.thaw()
    again = writer.complete_trial(0, 1, 0.1, 0.01)
    assert (again.state, again.mrr) == (TrialState.COMPLETED, 0.1)
    assert repository.trials("first")[0] == again


def test_a_statement_may_take_longer_than_the_server_may_be_silent_while_it_sends(repository: Repository) -> None:
    slowly = text("SELECT repeat('x', 100000), pg_sleep(0.5) FROM generate_series(1, 10)")
    with within(SILENT + 1, 20), repository._transactions.reading() as session:
        assert len(session.execute(slowly).all()) == 10


@pytest.mark.parametrize("state", ["killed", "frozen"])
def test_a_server_without_an_answer_cannot_be_opened(postgres: PostgresServer, postgres_url: str, state: str) -> None:
    (postgres.kill if state == "killed" else postgres.freeze)()
    with (
        within(0, CONNECT + SLACK),
        pytest.raises(UserError, match=r"cannot use the database .*\*\*\*@.*(refused|timeout)"),
    ):
        Repository.open(postgres_url)


def test_a_row_that_somebody_else_keeps_locked_is_an_outage(postgres_url: str, writer: SearchWriter) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as person:
        person.execute("SELECT * FROM search FOR UPDATE")
        with within(LOCK - 0.1, LOCK + SLACK), pytest.raises(DatabaseUnavailableError, match="lock timeout"):
            writer.renew(10)
    assert writer.renew(10) is False


def _write_slowly(url: str, lease: Lease, pipe: Connection) -> None:
    bounds.IDLE_SECONDS = IDLE
    repository = Repository.open(url)
    writer = SearchWriter(repository._transactions, lease)
    calls: list[Callable[[], object]] = [
        lambda: complete_with(lambda: (pipe.send("holds the lock"), pipe.recv()), writer),
        lambda: writer.complete_trial(0, 1, 0.9, 0.1),
    ]
    for call in calls:
        try:
            call()
        except Exception as error:
            pipe.send(type(error).__name__)
    repository.close()


@pytest.mark.parametrize("fate", [signal.SIGSTOP, signal.SIGKILL])
def test_a_controller_that_stands_still_in_the_middle_of_a_write_is_taken_over(
    postgres_url: str, repository: Repository, writer: SearchWriter, fate: signal.Signals
) -> None:
    """It keeps the row locked, lease or no lease: the server ends the session, and with it the lock."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    controller = context.Process(target=_write_slowly, args=(postgres_url, writer.lease, there))
    controller.start()
    assert controller.pid is not None
    assert here.recv() == "holds the lock"
    os.kill(controller.pid, fate)
    with within(0, IDLE + SLACK):
        assert writer_of(repository, who="bob", dead="me").lease.term == 2
    before = content(repository)
    if fate is signal.SIGSTOP:
        os.kill(controller.pid, signal.SIGCONT)
        here.send("go on")
        assert (here.recv(), here.recv()) == ("DatabaseUnavailableError", "LeaseLostError")
    controller.join(30)
    assert content(repository) == before
    assert repository.trials("first")[0].state is TrialState.RUNNING
