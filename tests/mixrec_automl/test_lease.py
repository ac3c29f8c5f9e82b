"""Taking a search over: from the dead at once, from the silent after a while, from the living never; and `stop`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mixrec_automl import holder, lease, stopping
from mixrec_automl.holder import Holder, is_dead, this_process
from mixrec_automl.interruption import StopRequest
from mixrec_automl.lease import acquire, heartbeat
from mixrec_automl.store import engine
from mixrec_automl.store.errors import LeaseLostError
from mixrec_automl.store.records import SearchState, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies.catalogue import BASELINE_STUDY
from mixrec_automl.studies.tune import TUNING
from tests.mixrec_automl.store.writing import added, started, writer_of
from trainers.errors import UserError

ELSEWHERE = Holder("bob@elsewhere, process 7", "another-boot/pid:[1] 7 1 abc")
NAME = "s"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = Repository.open(f"sqlite:///{tmp_path / 'db'}")
    repository.create_search(NAME, {}, "fingerprint")
    yield repository
    repository.close()


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.15)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.02)


def in_another_process(code: str) -> subprocess.Popen[str]:
    """Runs `code`, which prints a line and then sleeps."""
    program = f"import sys, time; from mixrec_automl.holder import this_process; {code}; time.sleep(1000)"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_a_process_that_was_killed_is_known_to_be_dead() -> None:
    me = this_process()
    assert "process " in me.name
    assert not is_dead(me.process)
    assert this_process().process != me.process, "two searches of one process are two holders"
    other = in_another_process("print(this_process().process, flush=True)")
    assert other.stdout is not None
    told = other.stdout.readline().strip()
    assert not is_dead(told)
    other.kill()
    deadline = time.monotonic() + 10
    while not is_dead(told):  # before it is waited for, it is still there, as a zombie
        assert time.monotonic() < deadline
        time.sleep(0.01)
    other.wait()
    assert is_dead(told)
    other.stdout.close()


def test_a_number_that_was_given_to_another_process_is_not_the_same_process() -> None:
    machine, pid, start, tail = this_process().process.split(" ")
    assert is_dead(f"{machine} {pid} {int(start) - 1} {tail}")


def test_of_processes_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine, _pid, _start, tail = this_process().process.split(" ")
    gone = f"{machine} 99999999 1 {tail}"
    assert is_dead(gone)
    assert not is_dead(ELSEWHERE.process)
    assert not is_dead("nonsense")
    assert not is_dead(f"{machine} 99999999 ? {tail}")
    monkeypatch.setattr(holder, "PROC", tmp_path)  # as on a system without /proc
    assert not is_dead(gone)
    assert not is_dead(this_process().process)


def test_the_lease_of_a_dead_process_is_taken_at_once(repository: Repository) -> None:
    machine, _pid, _start, tail = this_process().process.split(" ")
    repository.take_lease(NAME, "ada", f"{machine} 99999999 1 {tail}", 1000)
    told: list[str] = []
    began = time.monotonic()
    writer = acquire(repository, NAME, waiting=told.append)
    assert time.monotonic() - began < 0.5
    assert told == []
    assert writer.lease.term == 2


def test_a_silent_holder_is_waited_for(repository: Repository) -> None:
    repository.take_lease(NAME, ELSEWHERE.name, ELSEWHERE.process, 0.5)
    told: list[str] = []
    began = time.monotonic()
    acquire(repository, NAME, waiting=told.append)
    assert 0.3 < time.monotonic() - began < 3
    assert told == [ELSEWHERE.name]


def test_a_holder_that_is_alive_is_left_alone(repository: Repository) -> None:
    writer = acquire(repository, NAME, holder=ELSEWHERE)
    with (
        heartbeat(writer, StopRequest()),
        pytest.raises(UserError, match=rf"run by bob@elsewhere.*mixrec-automl stop {NAME}"),
    ):
        acquire(repository, NAME)
    assert repository.search(NAME).controller == ELSEWHERE.name


def test_a_heartbeat_holds_the_lease_and_hears_of_a_stop(repository: Repository) -> None:
    stop = StopRequest()
    with heartbeat(acquire(repository, NAME), stop):
        time.sleep(1.0)
        assert repository.search(NAME).controller is not None
        assert not stop.is_set()
        repository.request_stop(NAME)
        assert stop.wait(2)


def test_a_heartbeat_ends_a_controller_that_was_replaced(repository: Repository) -> None:
    stop = StopRequest()
    writer = repository.take_lease(NAME, "ada", "ada", 1000)
    with heartbeat(writer, stop):
        writer_of(repository, NAME, who="bob", dead="ada")
        assert stop.wait(2)
    with pytest.raises(LeaseLostError):
        writer.renew(1)


def test_stop_asks_the_controller_and_waits_for_it(repository: Repository) -> None:
    stop = StopRequest()
    writer = acquire(repository, NAME, holder=ELSEWHERE)

    def control() -> None:
        with heartbeat(writer, stop):
            stop.wait(10)
            writer.set_state(SearchState.STOPPED)
            writer.release()

    controller = threading.Thread(target=control)
    controller.start()
    assert stopping.stop_search(repository, NAME).state is SearchState.STOPPED
    controller.join()
    with pytest.raises(UserError, match="does not run: it is STOPPED"):
        stopping.stop_search(repository, NAME)


def test_stop_does_it_itself_where_the_controller_is_dead(repository: Repository) -> None:
    writer = repository.take_lease(NAME, ELSEWHERE.name, ELSEWHERE.process, 0.3)
    started(writer, 0)
    added(writer, 1)
    stopped = stopping.stop_search(repository, NAME)
    assert (stopped.state, repository.search(NAME).controller) == (SearchState.STOPPED, None)
    assert [trial.state for trial in repository.trials(NAME)] == [TrialState.QUEUED] * 2
    with pytest.raises(LeaseLostError):
        writer.complete_trial(0, 1, 0.1, 0.1)


@pytest.mark.parametrize(
    ("study", "command"),
    [
        (None, f"mixrec-automl resume {NAME}"),
        ({"name": "main", "variants": {}}, "mixrec-automl study run, with the same options"),
        ({"name": BASELINE_STUDY, "variants": {}}, "mixrec-automl baselines run, with the same options"),
        ({"name": TUNING, "model": "sasrec"}, "mixrec-automl baselines run, with the same options"),
    ],
)
def test_what_goes_on_with_it_is_told(repository: Repository, study: dict[str, object] | None, command: str) -> None:
    search = repository.search(NAME)
    told = replace(search, config={**search.config, **({} if study is None else {"study": study})})
    assert stopping.command_to_go_on(told) == command


def test_a_process_that_is_hidden_from_this_user_is_not_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where /proc is mounted with `hidepid`: it shows nothing of others, though their numbers are taken."""
    me = this_process()
    real = holder._machine()
    monkeypatch.setattr(holder, "_machine", lambda: real)
    monkeypatch.setattr(holder, "PROC", tmp_path)
    assert not is_dead(me.process)
    (tmp_path / str(os.getpid())).mkdir()  # the folder shows, and nothing in it can be read
    assert not is_dead(me.process)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_dead(me.process.replace(f" {os.getpid()} ", f" {child.pid} "))


def test_a_stop_that_waits_only_reads(repository: Repository, tmp_path: Path) -> None:
    """So a database that somebody else locks meanwhile does not end it."""
    writer = writer_of(repository, NAME)
    ended: list[object] = []
    stopping_it = threading.Thread(target=lambda: ended.append(stopping.stop_search(repository, NAME)), daemon=True)
    stopping_it.start()
    while not repository.search(NAME).is_to_stop:
        time.sleep(0.01)
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        stopping_it.join(engine.BUSY_SECONDS + 1)
        other.execute("ROLLBACK")
    assert stopping_it.is_alive()
    writer.set_state(SearchState.STOPPED)
    stopping_it.join(5)
    assert len(ended) == 1


def test_a_lease_that_was_given_back_stays_so(repository: Repository) -> None:
    """A last renewal of the heartbeat may come after it."""
    writer = acquire(repository, NAME)
    writer.release()
    writer.renew(100)
    assert repository.search(NAME).controller is None
    assert writer.holds_lease()
    acquire(repository, NAME, holder=ELSEWHERE)
    assert not writer.holds_lease()


def test_the_heartbeat_outlives_what_it_did_not_expect(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = acquire(repository, NAME)
    renew, errors = writer.renew, [ValueError("unexpected")]

    def fail_once(seconds: float) -> bool:
        if errors:
            raise errors.pop()
        return renew(seconds)

    monkeypatch.setattr(writer, "renew", fail_once)
    stop = StopRequest()
    with heartbeat(writer, stop):
        repository.request_stop(NAME)
        assert stop.wait(5)


def test_a_controller_that_comes_after_the_wish_to_stop_hears_of_it(repository: Repository) -> None:
    """Taking the lease forgets older wishes, for whoever resumes a search wants it to run."""
    writer_of(repository, NAME, who="first")
    stopping_it = threading.Thread(target=stopping.stop_search, args=(repository, NAME), daemon=True)
    stopping_it.start()
    time.sleep(0.1)
    second = writer_of(repository, NAME, who="second", dead="first")
    deadline = time.monotonic() + 5
    while not second.renew(100):
        assert time.monotonic() < deadline, "it was never told"
        time.sleep(0.02)
    second.set_state(SearchState.STOPPED)
    stopping_it.join(5)
    assert not stopping_it.is_alive()
