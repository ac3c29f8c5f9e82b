"""The contract of leases, on every supported database: one writer at a time, and no word from the one before."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from mixrec_automl.store.errors import LeaseHeldError, LeaseLostError
from mixrec_automl.store.records import Lease, Origin, SearchState, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import DESIGN, LONG, added, started, writer_of
from trainers.errors import UserError

SHORT = 0.3


@pytest.fixture
def search(repository: Repository) -> str:
    return repository.create_search("first", {}, "abc").name


def test_a_new_search_has_no_controller_and_one_lease_at_a_time(repository: Repository, search: str) -> None:
    assert repository.search(search).controller is None
    writer = writer_of(repository, who="ada")
    assert writer.lease == Lease("first", 1)
    assert repository.search(search).controller == repository.searches()[0].controller == "ada@test"
    with pytest.raises(LeaseHeldError, match="run by ada@test") as caught:
        writer_of(repository, who="bob")
    assert (caught.value.holder, caught.value.process) == ("ada@test", "ada")
    assert caught.value.until > time.time() + LONG / 2
    assert writer.renew(LONG) is False


def test_leases_of_two_searches_do_not_meet(repository: Repository, search: str) -> None:
    repository.create_search("second", {}, "")
    ada, bob = writer_of(repository, search, who="ada"), writer_of(repository, "second", who="bob")
    assert (added(ada, 0).number, added(bob, 0).number) == (0, 0)
    assert [len(repository.trials(name)) for name in (search, "second")] == [1, 1]


def test_there_is_no_lease_of_an_unknown_search(repository: Repository, search: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{search}'"):
        writer_of(repository, "frist")


def test_a_lease_runs_out_and_the_next_holder_has_a_higher_term(repository: Repository, search: str) -> None:
    writer_of(repository, who="ada", seconds=SHORT)
    time.sleep(SHORT + 0.05)
    assert repository.search(search).controller is None
    assert writer_of(repository, who="bob").lease == Lease("first", 2)
    assert repository.search(search).controller == "bob@test"


def test_a_renewed_lease_does_not_run_out(repository: Repository, search: str) -> None:
    writer = writer_of(repository, who="ada", seconds=SHORT)
    for _ in range(4):
        time.sleep(SHORT / 2)
        writer.renew(SHORT)
    with pytest.raises(LeaseHeldError):
        writer_of(repository, search, who="bob")


def test_a_released_lease_is_free_at_once(repository: Repository, search: str) -> None:
    writer = writer_of(repository, who="ada")
    writer.release()
    assert repository.search(search).controller is None
    assert writer_of(repository, who="bob").lease.term == 2
    with pytest.raises(LeaseLostError):
        writer.release()
    assert repository.search(search).controller == "bob@test", "a late release frees nobody else's lease"


def test_a_dead_holder_is_not_waited_for_and_a_live_one_is_not_taken_for_it(
    repository: Repository, search: str
) -> None:
    writer_of(repository, search, who="ada")
    with pytest.raises(LeaseHeldError):
        writer_of(repository, search, who="bob", dead="somebody else")
    assert writer_of(repository, search, who="bob", dead="ada").lease.term == 2
    with pytest.raises(LeaseHeldError):
        writer_of(repository, search, who="eve", dead="ada")


def test_taking_the_lease_can_be_repeated_after_a_lost_answer(repository: Repository, search: str) -> None:
    first = writer_of(repository, search, who="ada")
    second = writer_of(repository, search, who="ada")
    assert second.lease.term == first.lease.term + 1
    added(second, 0)
    with pytest.raises(LeaseLostError):
        added(first, 1)


LATE: dict[str, Callable[[SearchWriter], object]] = {
    "add": lambda writer: writer.add_trials(2, Design(DESIGN), [9], Origin.SOBOL, 0.0),
    "start": lambda writer: writer.start_trial(1, 1),
    "epoch": lambda writer: writer.record_epoch(0, 1, 1, {"validation_mrr": 0.9}),
    "complete": lambda writer: writer.complete_trial(0, 1, 0.9, 0.1),
    "fail": lambda writer: writer.fail_trial(0, 1, "late"),
    "requeue": lambda writer: writer.requeue_trial(0, 1),
    "state": lambda writer: writer.set_state(SearchState.STOPPED),
    "renew": lambda writer: writer.renew(LONG),
    "release": lambda writer: writer.release(),
}


@pytest.mark.parametrize("call", LATE.values(), ids=list(LATE))
def test_a_zombie_changes_nothing(repository: Repository, search: str, call: Callable[[SearchWriter], object]) -> None:
    """A controller that slept through its lease wakes up while another one runs the search."""
    zombie = writer_of(repository, who="ada", seconds=SHORT)
    started(zombie, 0)
    added(zombie, 1)
    time.sleep(SHORT + 0.05)
    writer_of(repository, who="bob")
    before = (repository.search(search), repository.trials(search), repository.observations(search))
    with pytest.raises(LeaseLostError, match="taken over by bob@test"):
        call(zombie)
    assert (repository.search(search), repository.trials(search), repository.observations(search)) == before


def test_a_lease_that_ran_out_still_writes_until_somebody_takes_it(repository: Repository, search: str) -> None:
    """After an outage of the database the controller goes on, unless it was replaced."""
    writer = writer_of(repository, who="ada", seconds=SHORT)
    time.sleep(SHORT + 0.05)
    assert added(writer, 0).state is TrialState.QUEUED
    assert writer.renew(LONG) is False
    assert repository.search(search).controller == "ada@test"


def test_a_controllers_own_clock_does_not_count(
    repository: Repository, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is an hour ahead neither takes a lease early nor dates its records into the future."""
    writer = writer_of(repository, who="ada", seconds=60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    with pytest.raises(LeaseHeldError):
        writer_of(repository, who="bob")
    created = started(writer, 0).created_at
    assert created is not None
    assert abs((created - datetime.fromtimestamp(real(), UTC)).total_seconds()) < 60
    assert repository.search(search).controller == "ada@test"


def test_a_wish_to_stop_reaches_the_controller_and_ends_with_its_lease(repository: Repository, search: str) -> None:
    writer = writer_of(repository, who="ada")
    repository.request_stop(search)
    assert writer.renew(LONG) is True
    assert writer.renew(LONG) is True, "until it is granted"
    writer.set_state(SearchState.STOPPED)
    writer.release()
    resumed = writer_of(repository, who="bob")
    assert resumed.renew(LONG) is False, "a resumed search is not stopped by an old wish"


def test_a_takeover_waits_for_an_open_write_and_then_wins(repository: Repository, search: str) -> None:
    """The write under way is whole, and the one after it is refused."""
    zombie = writer_of(repository, who="ada", seconds=SHORT)
    started(zombie, 0)
    time.sleep(SHORT + 0.05)
    with zombie._changing() as change:
        row = change.trial(0)
        taking = threading.Thread(target=writer_of, args=(repository,), kwargs={"who": "bob"})
        taking.start()
        time.sleep(0.2)
        assert taking.is_alive(), "the takeover waits for the row"
        change.end(row, 1, TrialState.FAILED)
    taking.join(10)
    assert repository.trials(search)[0].state is TrialState.FAILED
    with pytest.raises(LeaseLostError):
        zombie.renew(LONG)


def test_an_error_within_a_write_undoes_all_of_it(repository: Repository, search: str) -> None:
    writer = writer_of(repository)
    started(writer, 0)
    before = (repository.search(search), repository.trials(search))

    def fail_within() -> None:
        with writer._changing() as change:
            change.end(change.trial(0), 1, TrialState.COMPLETED)
            change.session.flush()
            raise LookupError("in the middle")

    with pytest.raises(LookupError):
        fail_within()
    assert (repository.search(search), repository.trials(search)) == before


def test_of_many_threads_one_gets_the_lease(repository: Repository, search: str) -> None:
    def take(number: int) -> bool:
        try:
            writer_of(repository, who=f"thread {number}")
        except LeaseHeldError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1
    assert repository.search(search).controller is not None


def _write_as(url: str, who: str, trials: int) -> list[int]:
    """A controller as a process: takes the lease whenever it is free, adds a trial, and soon dies in its sleep."""
    repository = Repository.open(url)
    written: list[int] = []
    end = time.monotonic() + 60
    while len(repository.trials("first")) < trials and time.monotonic() < end:
        try:
            writer = writer_of(repository, who=who, seconds=0.02)
            for _ in range(3):
                number = len(repository.trials("first"))
                if number >= trials:
                    break
                writer.add_trials(number, Design(DESIGN), [number], Origin.SOBOL, 0.0)
                written.append(number)
                time.sleep(0.015)  # the lease may run out in between
        except (LeaseHeldError, LeaseLostError):
            time.sleep(0.002)
    repository.close()
    return written


def test_two_controllers_that_fight_for_a_search_write_each_trial_once(
    database_url: str, repository: Repository, search: str
) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_write_as, database_url, who, 40) for who in ("ada", "bob")]
        written = [future.result() for future in futures]
    assert sorted(written[0] + written[1]) == list(range(40)) == [trial.number for trial in repository.trials(search)]
    assert all(written), "both had their turns"
