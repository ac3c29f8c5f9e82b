"""What the controller makes of everything around a trial that fails: workers, storage, executor, database, lease."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from sqlalchemy import event

from mixrec_automl import controller, patience, storage_trouble
from mixrec_automl.cluster import lasting_executor
from mixrec_automl.cluster.executor import Event, ExecutorDied, TrialBegan, TrialLost
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.interruption import StopRequest
from mixrec_automl.storage_trouble import StorageTrouble
from mixrec_automl.store.errors import DatabaseUnavailableError, LeaseLostError
from mixrec_automl.store.records import SearchState, Trial, TrialState
from tests.mixrec_automl.bench import Bench
from tests.mixrec_automl.cluster.trainings import Counting, true_mrr
from tests.mixrec_automl.store.writing import writer_of


class Losing(InProcessExecutor):
    """Loses the attempts named, as (number, attempt): once they have begun, or before."""

    def __init__(self, lost: set[tuple[int, int]], *, is_storage: bool = False, begin: bool = True) -> None:
        super().__init__(Counting())
        self._lose, self._is_storage, self._begin = lost, is_storage, begin

    def submit(self, trial: TrialTask) -> None:
        if (trial.number, trial.attempt) in self._lose:
            if self._begin:
                self._events.put(TrialBegan(trial.number, trial.attempt))
            self._events.put(TrialLost(trial.number, trial.attempt, "worker\nwas killed", self._is_storage))
        else:
            super().submit(trial)


def test_a_lost_trial_is_tried_again(bench: Bench) -> None:
    search = bench.run_with(partial(Losing, {(1, 1), (1, 2), (3, 1)}), trials=5)
    assert search.state is SearchState.COMPLETED
    assert [(trial.attempt, trial.losses) for trial in bench.trials] == [(1, 0), (3, 2), (1, 0), (2, 1), (1, 0)]
    assert [trial.mrr for trial in bench.trials] == [true_mrr(trial.architecture) for trial in bench.trials]
    assert {trial.error for trial in bench.trials} == {None}


def test_a_trial_that_is_lost_too_often_has_failed(bench: Bench) -> None:
    search = bench.run_with(partial(Losing, {(1, 1), (1, 2)}), trials=5, max_attempts=2)
    assert search.state is SearchState.COMPLETED
    failed = bench.trials[1]
    assert (failed.state, failed.attempt) == (TrialState.FAILED, 2)
    assert failed.error == "lost 2 times, the last time like this:\nworker\nwas killed"
    assert bench.states.count(TrialState.COMPLETED) == 4


def test_storage_errors_are_waited_for_and_count_against_no_trial(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_trouble, "FIRST_WAIT", 0.05)
    lost = {(0, attempt) for attempt in range(1, 5)} | {(1, 1)}
    search = bench.run_with(partial(Losing, lost, is_storage=True), trials=3, slots=1, max_attempts=2)
    assert search.state is SearchState.COMPLETED
    assert [(trial.losses, trial.state) for trial in bench.trials] == [(0, TrialState.COMPLETED)] * 3
    assert bench.trials[0].attempt == 5
    assert "checkpoints cannot be written, trials wait (was killed)" in bench.watching.notices
    assert bench.watching.notices[-1] is None


def test_a_trial_whose_own_files_are_damaged_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others write while it meets one storage error after the other: the disk is not to blame."""
    monkeypatch.setattr(storage_trouble, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(storage_trouble, "LONGEST_WAIT", 0.01)
    lost = {(0, attempt) for attempt in range(1, 99)}
    search = bench.run_with(partial(Losing, lost, is_storage=True), trials=6, max_attempts=2)
    assert search.state is SearchState.COMPLETED
    assert bench.states == [TrialState.FAILED] + [TrialState.COMPLETED] * 5


def test_while_a_trial_tries_again_the_storage_is_not_given_up() -> None:
    """However long its epoch is: only another error says that the trouble goes on."""
    now = 0.0
    trouble = StorageTrouble(lambda _: None, lambda: now)
    assert trouble.failed(0, "full")
    now = 1000.0
    assert trouble.reason_to_give_up is None
    assert trouble.failed(0, "full")
    assert "free or mend the disk before you go on: full" in (trouble.reason_to_give_up or "")
    trouble.worked(0)
    assert trouble.reason_to_give_up is None


def test_what_no_worker_had_begun_counts_against_no_trial(bench: Bench) -> None:
    lost = {(0, attempt) for attempt in range(1, 5)}
    search = bench.run_with(partial(Losing, lost, begin=False), trials=3, max_attempts=2)
    assert search.state is SearchState.COMPLETED
    assert [(trial.losses, trial.attempt) for trial in bench.trials] == [(0, 5), (0, 1), (0, 1)]


def test_storage_that_stays_away_ends_the_search_which_can_be_resumed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_trouble, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(storage_trouble, "STORAGE_PATIENCE", 0.4)
    always = {(number, attempt) for number in range(4) for attempt in range(1, 50)}
    search = bench.run_with(partial(Losing, always, is_storage=True), trials=3)
    assert search.state is SearchState.FAILED
    assert "checkpoints cannot be written" in (search.error or "")
    assert set(bench.states) == {TrialState.QUEUED}
    assert bench.run(Counting(), trials=3).state is SearchState.COMPLETED


@dataclass
class Dying:
    """Makes executors; each of those that `deaths` counts dies at its `after`-th look for an event."""

    deaths: int
    after: int = 3
    made: int = 0

    def __call__(self) -> InProcessExecutor:
        self.made += 1
        executor = InProcessExecutor(Counting(seconds=0.02))
        if self.made <= self.deaths:
            looks = iter(range(self.after))
            inner = executor.next_event

            def next_event(timeout: float) -> Event | None:
                if next(looks, None) is None:
                    raise ExecutorDied("the hub is gone")
                return inner(timeout)

            executor.next_event = next_event  # type: ignore[method-assign]
        return executor


def test_an_executor_that_dies_is_replaced(bench: Bench) -> None:
    make = Dying(deaths=2)
    search = bench.run_with(make, trials=4)
    assert search.state is SearchState.COMPLETED
    assert make.made == 3
    assert sum(trial.losses for trial in bench.trials) >= 2
    assert bench.states == [TrialState.COMPLETED] * 4


def test_executors_that_keep_dying_end_the_search(bench: Bench) -> None:
    make = Dying(deaths=99, after=0)
    search = bench.run_with(make, trials=4, max_attempts=99)
    assert (search.state, search.error) == (SearchState.FAILED, "the hub is gone")
    assert make.made == lasting_executor.MOST_DEATHS + 1
    assert TrialState.RUNNING not in bench.states


@pytest.mark.parametrize("deaths", [1, lasting_executor.MOST_DEATHS, 99])
def test_executors_that_die_while_they_are_made_are_no_different(deaths: int, bench: Bench) -> None:
    left = iter(range(deaths))

    def make() -> InProcessExecutor:
        if next(left, None) is not None:
            raise ExecutorDied("no machine is there")
        return InProcessExecutor(Counting())

    search = bench.run_with(make, trials=4)
    if deaths > lasting_executor.MOST_DEATHS:
        assert (search.state, search.error) == (SearchState.FAILED, "no machine is there")
    else:
        assert (search.state, bench.states) == (SearchState.COMPLETED, [TrialState.COMPLETED] * 4)


@dataclass
class Hanging(InProcessExecutor):
    """Its first attempts never report; cancelling them is all that ends them."""

    cancelled: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(Counting(epochs=2, seconds=0.01))

    def submit(self, trial: TrialTask) -> None:
        if trial.attempt > 1 or trial.number % 2:
            super().submit(trial)
        else:
            self._events.put(TrialBegan(trial.number, trial.attempt))

    def cancel(self, number: int, attempt: int) -> None:
        self.cancelled.append((number, attempt))
        self._events.put(TrialLost(number, attempt, "cancelled"))


def test_a_trial_that_reports_nothing_is_ended_and_tried_again(bench: Bench) -> None:
    executor = Hanging()
    search = bench.run_with(lambda: executor, trials=4, hang_seconds=0.5)
    assert search.state is SearchState.COMPLETED
    assert executor.cancelled == [(0, 1), (2, 1)]
    assert [(trial.attempt, trial.losses) for trial in bench.trials] == [(2, 1), (1, 0), (2, 1), (1, 0)]


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What happens where a server is away is in `test_controller_on_postgres`."""


def lock_database(bench: Bench, seconds: float) -> threading.Thread:
    """Another program keeps the database to itself; returns at once."""
    path = bench.folder.parent / "mixrec.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")

    def release() -> None:
        time.sleep(seconds)
        other.execute("ROLLBACK")
        other.close()

    thread = threading.Thread(target=release)
    thread.start()
    return thread


@pytest.fixture
def impatient_sqlite(bench: Bench) -> None:
    engine = bench.repository._transactions._engine
    engine.dispose()
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout = 50"))


@on_sqlite
@pytest.mark.usefixtures("impatient_sqlite")
def test_a_search_outlasts_an_outage_of_the_database(bench: Bench) -> None:
    locks: list[threading.Thread] = []

    def lock(trial: Trial) -> None:
        if trial.number == 2 and trial.state is TrialState.RUNNING and not locks:
            locks.append(lock_database(bench, 2.0))

    bench.watching.on_trial = lock
    search = bench.run(Counting(epochs=4, seconds=0.1), trials=6)
    assert search.state is SearchState.COMPLETED
    assert bench.states == [TrialState.COMPLETED] * 6
    assert {trial.attempt for trial in bench.trials} == {1}, "trials went on meanwhile"
    epochs = [(it.trial, it.epoch) for it in bench.repository.observations("s")]
    assert epochs == [(number, epoch) for number in range(6) for epoch in (1, 2, 3, 4)]
    told = [notice for notice in bench.watching.notices if notice]
    assert told
    assert all(notice.startswith("the database does not answer, trials go on (") for notice in told)
    assert bench.watching.notices[-1] is None
    locks[0].join()


@on_sqlite
@pytest.mark.usefixtures("impatient_sqlite")
def test_a_stop_does_not_wait_for_a_database_that_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_WHEN_STOPPING", 0.3)
    monkeypatch.setattr(controller, "STOP_SECONDS", 0.1)
    locks: list[threading.Thread] = []

    def lock(trial: Trial) -> None:
        if trial.number == 2 and trial.state is TrialState.RUNNING and not locks:
            locks.append(lock_database(bench, 4.0))
            threading.Timer(0.5, bench.stop.set).start()

    bench.watching.on_trial = lock
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        bench.run(Counting(epochs=4, seconds=0.1))
    assert time.monotonic() - began < 4.0
    locks[0].join()
    assert bench.repository.search("s").state is SearchState.RUNNING, "as if it had died"
    bench.stop = StopRequest()
    bench.watching.on_trial = lambda _: None
    assert bench.run(Counting(epochs=4)).state is SearchState.COMPLETED
    assert bench.states == [TrialState.COMPLETED] * 6


def test_a_controller_that_is_replaced_records_nothing_more(bench: Bench) -> None:
    def take_over(trial: Trial) -> None:
        if trial.number == 2 and trial.state is TrialState.COMPLETED:
            writer_of(bench.repository, "s", who="bob", dead="me")

    bench.watching.on_trial = take_over
    with pytest.raises(LeaseLostError, match="taken over by bob@test"):
        bench.run(Counting(), slots=1)
    assert bench.states == [TrialState.COMPLETED] * 3
    assert bench.repository.search("s").state is SearchState.RUNNING, "that is bob's to change"


def test_answers_that_are_lost_on_the_way_change_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write arrives, but every second answer does not: all are made again."""
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.001)
    lossy = {"start_trial", "record_epoch", "complete_trial", "add_trials", "set_state"}
    unanswered: deque[str] = deque()
    for name in lossy:
        method = getattr(controller.SearchWriter, name)

        def losing(*args: object, method: Callable[..., object] = method, name: str = name, **kwargs: object) -> object:
            answer = method(*args, **kwargs)
            if name in unanswered:
                unanswered.remove(name)
                return answer
            unanswered.append(name)
            raise DatabaseUnavailableError("connection reset")

        monkeypatch.setattr(controller.SearchWriter, name, losing)
    assert bench.run(Counting(epochs=2), trials=5).state is SearchState.COMPLETED
    assert [(trial.number, trial.attempt, trial.state) for trial in bench.trials] == [
        (number, 1, TrialState.COMPLETED) for number in range(5)
    ]
    assert len({trial.architecture for trial in bench.trials}) == 5
    assert len(bench.repository.observations("s")) == 10


def test_an_attempt_knows_how_many_epochs_are_recorded(bench: Bench) -> None:
    """In this run or in one before it, so that it can tell what an attempt before it could not."""
    told: list[tuple[int, int, int | None]] = []

    def interrupting(trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        told.append((trial.number, trial.attempt, trial.recorded_epochs))
        if trial.attempt == 1:
            on_epoch(1, {"validation_mrr": 0.1})
            on_epoch(2, {"validation_mrr": 0.1})
            bench.stop.set()
            return None
        return Counting()(trial, on_epoch)

    bench.run(interrupting, trials=1, slots=1)
    bench.stop = StopRequest()
    assert bench.run(interrupting, trials=1, slots=1).state is SearchState.COMPLETED
    assert told == [(0, 1, 0), (0, 2, 2)]
