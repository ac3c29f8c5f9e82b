"""What is told of a search that runs elsewhere: each step once and in order, also over an outage of the database."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from rich.console import Console

from mixrec_automl import patience, watching
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.records import Search, SearchState
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from mixrec_automl.watching import watch_search
from tests.mixrec_automl.store.writing import LONG, added, started, writer_of

CONFIG = {"search": {"trials": 3}, "training": {"epochs": 2}}


@pytest.fixture
def repository(database_url: str) -> Iterator[Repository]:
    with closing(Repository.open(database_url)) as opened:
        opened.create_search("s", CONFIG, "")
        yield opened


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.02)


class Watched:
    """Another process's view of search "s", in a thread. It has looked once when this is made: what is there by then
    is no news to it."""

    def __init__(self, repository: Repository) -> None:
        self._file = io.StringIO()
        self._search: Search | None = None
        search, look, looked = repository.search("s"), repository.search, threading.Event()

        def look_and_say(name: str) -> Search:
            looked.set()
            return look(name)

        repository.search = look_and_say  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._run, args=(repository, search), daemon=True)
        self._thread.start()
        assert looked.wait(10)

    def _run(self, repository: Repository, search: Search) -> None:
        self._search = watch_search(repository, search, Console(file=self._file, width=200))

    @property
    def lines(self) -> list[str]:
        return self._file.getvalue().splitlines()

    def wait_for(self, text: str) -> None:
        wait(lambda: text in self._file.getvalue(), self._file.getvalue)

    def ended(self) -> SearchState:
        self._thread.join(10)
        assert self._search is not None, self.lines
        return self._search.state


def wait(is_so: Callable[[], bool], tell: Callable[[], str]) -> None:
    waiting = threading.Event()
    for _ in range(1000):
        if is_so():
            return
        waiting.wait(0.01)
    raise AssertionError(tell())


def end(writer: SearchWriter, state: SearchState = SearchState.COMPLETED) -> None:
    writer.set_state(state)
    writer.release()


def test_every_step_is_told_once_as_the_search_itself_tells_it(repository: Repository) -> None:
    writer = writer_of(repository, "s")
    started(writer, 0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.01})
    watched = Watched(repository)
    writer.record_epoch(0, 1, 2, {"validation_mrr": 0.02, "seconds": 3.0})
    watched.wait_for("epoch 2/2")
    writer.complete_trial(0, 1, 0.02, 0.001)
    watched.wait_for("COMPLETED")
    started(writer, 1)
    watched.wait_for("RUNNING")
    writer.requeue_trial(1, 1, lost="its worker died")
    watched.wait_for("to be run again: its worker died")
    writer.start_trial(1, 2)
    watched.wait_for("attempt 2")
    writer.fail_trial(1, 2, "ValueError: no")
    end(writer)
    assert watched.ended() is SearchState.COMPLETED
    assert watched.lines == [
        "trial 0  010-111  epoch 2/2  MRR 0.0200  3.0 s",
        "trial 0  010-111  COMPLETED  MRR 0.0200 ± 0.0010; best 0.0200 (trial 0); 1/3 trials, "
        + left(watched.lines[1]),
        "trial 1  010-111  QUEUED  proposed in 0.2 s, Sobol",
        "trial 1  010-111  RUNNING  attempt 1",
        "trial 1  010-111  QUEUED  to be run again: its worker died",
        "trial 1  010-111  RUNNING  attempt 2",
        "trial 1  010-111  FAILED  ValueError: no; 2/3 trials, " + left(watched.lines[6]),
    ]


def left(line: str) -> str:
    """How much time is left depends on how much has passed."""
    return line.rpartition(", ")[2]


def test_what_happens_between_two_looks_is_told_in_its_order(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.5)
    writer = writer_of(repository, "s")
    watched = Watched(repository)
    started(writer, 0)
    for epoch in (1, 2):
        writer.record_epoch(0, 1, epoch, {"validation_mrr": 0.01 * epoch})
    writer.complete_trial(0, 1, 0.02, 0.001)
    added(writer, 1)
    end(writer, SearchState.STOPPED)
    assert watched.ended() is SearchState.STOPPED
    told = [line.split("  ")[2] for line in watched.lines]
    assert told == ["QUEUED", "RUNNING", "epoch 1/2", "epoch 2/2", "COMPLETED", "QUEUED"]


def test_what_a_search_waits_for_is_told(repository: Repository) -> None:
    writer = repository.take_lease("s", "ada@there", "ada", LONG, cluster="c")
    watched = Watched(repository)
    writer.note_slots(4, 2, "2 of 4 slots: shares the cluster with b")
    watched.wait_for("2 of 4 slots: shares the cluster with b")
    repository.request_stop("s")
    watched.wait_for("it has been asked to stop")
    writer.release()
    watched.wait_for("no process runs it any more: `mixrec-automl resume s` goes on with it")
    writer_of(repository, "s")
    watched.wait_for("that is over, the search goes on")
    end(writer_of(repository, "s"), SearchState.FAILED)
    assert watched.ended() is SearchState.FAILED


def test_what_was_the_matter_ends_with_the_search(repository: Repository) -> None:
    writer = repository.take_lease("s", "ada@there", "ada", LONG, cluster="c")
    watched = Watched(repository)
    writer.note_slots(4, 2, "2 of 4 slots: shares the cluster with b")
    repository.request_stop("s")
    watched.wait_for("it has been asked to stop")
    end(writer, SearchState.STOPPED)
    assert watched.ended() is SearchState.STOPPED
    assert watched.lines == ["2 of 4 slots: shares the cluster with b", "it has been asked to stop"], (
        "it does not go on"
    )


def test_a_database_that_is_away_is_waited_for(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(repository, "s")
    watched = Watched(repository)
    added(writer, 0)
    watched.wait_for("QUEUED")

    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailableError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "trials", away)
        watched.wait_for("the database does not answer, trials go on (no route to host)")
        writer.start_trial(0, 1)
    watched.wait_for("that is over")
    watched.wait_for("RUNNING")
    end(writer)
    assert watched.ended() is SearchState.COMPLETED
    assert sum("RUNNING" in line for line in watched.lines) == 1


def test_a_search_that_has_ended_is_not_waited_for(repository: Repository) -> None:
    end(writer_of(repository, "s"))
    assert watch_search(repository, repository.search("s"), Console(file=io.StringIO())).state is SearchState.COMPLETED
