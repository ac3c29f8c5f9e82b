"""Searches on one cluster, on a real database: what a controller is told, and what it does with its trials then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from mixrec_automl import cluster_share
from mixrec_automl.cluster.executor import MachinesChanged
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.cluster_share import ClusterShare, slots_per_user
from mixrec_automl.controller import SearchParts, run_search
from mixrec_automl.fair_share import Machine
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.records import Search, SearchState, Trial, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from tests.mixrec_automl.bench import Watching
from tests.mixrec_automl.cluster.trainings import Counting
from tests.mixrec_automl.proposers import Enumerating
from tests.mixrec_automl.store.writing import LONG
from trainers.errors import UserError

CLUSTER = "session-1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def repository(database_url: str) -> Iterator[Repository]:
    with closing(Repository.open(database_url)) as opened:
        yield opened


def begin(
    repository: Repository,
    name: str,
    *,
    slots: int = 4,
    owner: str = "ada",
    cluster: str | None = CLUSTER,
    **own: object,
) -> SearchWriter:
    """A search with a controller that is alive."""
    repository.create_search(name, {"cluster": {"slots": slots, **own}}, "", owner=owner)
    return repository.take_lease(name, "me", name, LONG, cluster=cluster)


def share_of(repository: Repository, writer: SearchWriter, *, slots: int = 4, quota: int | None = None) -> ClusterShare:
    share = ClusterShare(writer, slots, partial(repository.searches_on, CLUSTER), quota, Clock())
    share.machines = (Machine(4, 0),)
    return share


# What a controller is told


def test_a_search_alone_gets_all_that_fits(repository: Repository) -> None:
    share = share_of(repository, begin(repository, "a"))
    assert share.look(4)
    assert (share.slots, share.note) == (4, None)
    assert not share.look(4), "nothing new"
    share.machines = (Machine(3, 0),)
    assert share.look(4), "at once"
    assert (share.slots, share.note) == (3, "3 of 4 slots: the cluster has room for no more")


def test_before_it_knows_the_machines_it_has_no_slot(repository: Repository) -> None:
    share = share_of(repository, begin(repository, "a"))
    share.machines = ()
    assert not share.look(4)
    assert share.slots == 0


def test_searches_share_and_the_database_says_how(repository: Repository) -> None:
    first, second = (share_of(repository, begin(repository, name)) for name in "ab")
    assert first.look(4)
    assert (first.slots, first.note) == (2, "2 of 4 slots: shares the cluster with b")
    assert second.look(1), "it has one trial left"
    assert (second.slots, second.note) == (1, None)
    clock = first._clock
    assert isinstance(clock, Clock)
    assert not first.look(4), "it does not ask at every turn"
    clock.now += cluster_share.LOOK_SECONDS
    assert first.look(4)
    assert first.slots == 3
    stored = repository.search("a")
    assert (stored.slots_wanted, stored.slots_allotted, stored.slots_note) == (4, 3, first.note)
    assert (stored.cluster, stored.owner) == (CLUSTER, "ada")


def test_priorities_and_many_neighbours_are_named(repository: Repository) -> None:
    share = share_of(repository, begin(repository, "a"))
    for name in "bcde":
        begin(repository, name, slots=1, priority=2)
    assert share.look(2)
    named = "b (priority 2), c (priority 2), d (priority 2), 1 more"
    assert (share.slots, share.note) == (0, f"0 of 4 slots: shares the cluster with {named}")


def test_a_quota_holds_for_all_searches_of_an_owner(repository: Repository) -> None:
    begin(repository, "a", owner="ada", priority=1, slots=1)
    share = share_of(repository, begin(repository, "b", owner="ada"), quota=2)
    assert share.look(4)
    assert (share.slots, share.note) == (1, "1 of 4 slots: ada may use 2 (MIXREC_SLOTS_PER_USER)")


def test_only_searches_that_are_run_on_this_cluster_count(repository: Repository) -> None:
    share = share_of(repository, begin(repository, "a"))
    begin(repository, "elsewhere", cluster="session-2")
    begin(repository, "laptop", cluster=None)
    begin(repository, "released").release()
    begin(repository, "stopped").set_state(SearchState.STOPPED)
    repository.create_search("dead", {}, "")
    repository.take_lease("dead", "me", "dead", -1.0, cluster=CLUSTER)
    assert [search.name for search in repository.searches_on(CLUSTER)] == ["a"]
    assert share.look(4)
    assert share.slots == 4


def test_who_takes_a_search_over_begins_without_what_the_former_had(repository: Repository) -> None:
    share = share_of(repository, begin(repository, "a"))
    share.look(4)
    repository.take_lease("a", "me", "a", LONG)
    found = repository.search("a")
    assert (found.cluster, found.slots_wanted, found.slots_allotted) == (None, None, None)


def test_while_the_database_is_away_a_search_keeps_what_it_has(repository: Repository) -> None:
    is_away = False

    def running() -> tuple[Search, ...]:
        if is_away:
            raise DatabaseUnavailableError("away")
        return repository.searches_on(CLUSTER)

    share = ClusterShare(begin(repository, "a"), 4, running, None, Clock())
    share.machines = (Machine(4, 0),)
    assert share.look(4)
    is_away = True
    assert not share.look(3)
    assert share.slots == 4


def test_a_search_whose_lease_has_run_out_keeps_what_it_has(repository: Repository) -> None:
    """As after an outage of the database, until the lease is renewed."""
    writer = begin(repository, "a")
    share = share_of(repository, writer)
    share.look(4)
    writer.renew(-1.0)
    share.look(3)
    assert share.slots == 4


@pytest.mark.parametrize(("text", "quota"), [("", None), ("3", 3)])
def test_the_quota_is_read(text: str, quota: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXREC_SLOTS_PER_USER", text)
    assert slots_per_user() == quota


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_quota_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXREC_SLOTS_PER_USER", text)
    with pytest.raises(UserError, match=f"MIXREC_SLOTS_PER_USER={text}: give a whole number"):
        slots_per_user()


# What it does then


class Told(InProcessExecutor):
    """Says which machines there are, and keeps how many slots it was told to use."""

    def __init__(self, training: Callable[[TrialTask, OnEpoch], TrialScore | None], cpus: int) -> None:
        super().__init__(training)
        self.used: list[int] = []
        self.tell(cpus)

    def tell(self, cpus: int) -> None:
        self._events.put(MachinesChanged((Machine(cpus, 0),)))

    def use(self, slots: int) -> None:
        self.used.append(slots)


@dataclass
class Running:
    """A search in a thread."""

    repository: Repository
    name: str
    folder: Path
    trials: int
    slots: int
    cpus: int
    training: Callable[[TrialTask, OnEpoch], TrialScore | None]
    watching: Watching = field(default_factory=Watching)
    most: int = 0
    """Trials that ran at the same time"""
    executor: Told | None = None
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self) -> None:
        self.running: set[int] = set()
        self.watching.on_trial = self._count
        self._writer = begin(self.repository, self.name, slots=self.slots)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _count(self, trial: Trial) -> None:
        (self.running.add if trial.state is TrialState.RUNNING else self.running.discard)(trial.number)
        self.most = max(self.most, len(self.running))

    def _make(self) -> Told:
        self.executor = Told(self.training, self.cpus)
        return self.executor

    def _run(self) -> None:
        share = ClusterShare(self._writer, self.slots, partial(self.repository.searches_on, CLUSTER), None)
        parts = SearchParts(
            self._writer, (), (), 2, Enumerating(), self._make, self.watching, lambda: None, share
        )  # fmt: skip
        run_search(BudgetConfig(trials=self.trials, seed=3, max_attempts=1), self.slots, self.folder, parts, self.stop)

    def join(self) -> tuple[Trial, ...]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.repository.search(self.name).state is SearchState.COMPLETED
        return self.repository.trials(self.name)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_share, "LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("quick")
def test_a_second_search_gets_slots_of_the_first_and_gives_them_back(repository: Repository, tmp_path: Path) -> None:
    """No trial is lost by it: those that give way go on after their epoch, and no epoch is trained twice."""
    first = Running(repository, "a", tmp_path / "a", 8, 4, 4, Counting(epochs=20, seconds=0.05))
    until(lambda: len(first.running) == 4)
    second = Running(repository, "b", tmp_path / "b", 3, 2, 4, Counting(epochs=20, seconds=0.05))
    until(lambda: len(second.running) == 2 and len(first.running) == 2)
    seen = []
    until(lambda: bool(seen.append(len(first.running))) or len(second.running) < 2)
    assert max(seen) == 2, "what has given way is not RUNNING"
    seconds = second.join()
    firsts = first.join()
    assert second.most == 2
    assert [trial.state for trial in (*firsts, *seconds)] == [TrialState.COMPLETED] * 11
    assert [trial.losses for trial in (*firsts, *seconds)] == [0] * 11
    assert sorted(trial.attempt for trial in firsts) == [1] * 6 + [2] * 2, "two gave way, once"
    epochs = [(it.trial, it.epoch) for it in repository.observations("a")]
    assert sorted(epochs) == [(trial, epoch) for trial in range(8) for epoch in range(1, 21)]
    assert first.executor is not None
    used = first.executor.used
    assert used[0] == 4
    assert 2 in used
    assert used.index(2) < len(used) - 1, "they came back"
    assert first.watching.shares[0] is None
    assert "2 of 4 slots: shares the cluster with b" in first.watching.shares


@pytest.mark.usefixtures("quick")
def test_no_more_trials_run_than_the_machines_hold(repository: Repository, tmp_path: Path) -> None:
    search = Running(repository, "a", tmp_path / "a", 4, 4, 1, Counting(epochs=2, seconds=0.05))
    until(lambda: len(search.running) == 1)
    assert search.executor is not None
    assert search.watching.shares[0] == "1 of 4 slots: the cluster has room for no more"
    search.executor.tell(2)
    trials = search.join()
    assert search.most == 2
    assert [trial.attempt for trial in trials] == [1] * 4


@pytest.mark.usefixtures("quick")
def test_where_all_slots_are_gone_a_search_waits_and_goes_on(repository: Repository, tmp_path: Path) -> None:
    other = begin(repository, "urgent", priority=1)
    search = Running(repository, "a", tmp_path / "a", 2, 2, 4, Counting(epochs=2))
    until(lambda: bool(search.watching.shares))
    assert search.watching.shares == ["0 of 2 slots: shares the cluster with urgent (priority 1)"]
    assert search.running == set()
    other.set_state(SearchState.COMPLETED)
    assert len(search.join()) == 2


def until(is_so: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if is_so():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came to that")
