"""The mailbox of the slots: whatever happens to workers, each trial is handed out and ends exactly once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    TrialBegan,
    TrialCompleted,
    TrialEnded,
    TrialFailed,
    TrialLost,
    TrialStopped,
)
from mixrec_automl.cluster.mailbox import Mailbox, WorkerProcess
from mixrec_automl.cluster.training import TrialTask
from tests.mixrec_automl.cluster.trainings import task

HERE = Path("unused")
WORKER = WorkerProcess("node", 1)


def come_up(mailbox: Mailbox, group: str = "g", workers: int = 1) -> None:
    mailbox.expect(group)
    for _ in range(workers):
        assert mailbox.join(group, WORKER)


def given(mailbox: Mailbox, number: int = 0, group: str = "g") -> TrialTask:
    """Trial `number` in the hands of `group`."""
    trial = task(number, HERE)
    come_up(mailbox, group)
    mailbox.submit(trial)
    assert mailbox.next_trial(group, 0, 0) == trial
    mailbox.begin(group)
    assert mailbox.next_event(1) == TrialBegan(number, 1)
    return trial


def test_trials_and_events_keep_their_order() -> None:
    mailbox = Mailbox()
    assert mailbox.next_event(0.01) is None
    given(mailbox)
    mailbox.submit(task(1, HERE))
    events = [EpochEnded(0, 1, 1, {}), EpochEnded(0, 1, 2, {}), TrialCompleted(0, 1, 0.1, 0.01)]
    assert [mailbox.post("g", event) for event in events] == [True] * 3
    assert [mailbox.next_event(1) for _ in events] == events
    assert mailbox.next_trial("g", 0, 1) == task(1, HERE)


def test_a_worker_waits_for_a_trial_and_is_told_to_leave() -> None:
    mailbox, taken = Mailbox(), list[TrialTask | None]()
    come_up(mailbox)
    waiting = threading.Thread(target=lambda: taken.append(mailbox.next_trial("g", 0, 0)))
    waiting.start()
    mailbox.stop()
    waiting.join(5)
    assert taken == [None]


def test_groups_beyond_what_may_be_up_leave_once_they_hold_nothing() -> None:
    mailbox = Mailbox()
    given(mailbox, 0, "g")
    come_up(mailbox, "h")
    mailbox.use(1)
    assert mailbox.next_trial("h", 0, 0) is None, "the one that trains may stay"
    mailbox.group_ended("h", "its workers left", has_died=False)
    mailbox.submit(task(1, HERE))
    mailbox.post("g", TrialCompleted(0, 1, 0.1, 0.01))
    assert mailbox.next_trial("g", 0, 1) == task(1, HERE)
    mailbox.use(0)
    mailbox.post("g", TrialCompleted(1, 1, 0.1, 0.01))
    assert mailbox.next_trial("g", 0, 2) is None


def test_a_group_that_waits_for_a_trial_leaves_with_all_its_workers() -> None:
    mailbox, taken = Mailbox(), list[TrialTask | None]()
    come_up(mailbox, workers=2)
    waiting = [
        threading.Thread(target=lambda rank=rank: taken.append(mailbox.next_trial("g", rank, 0))) for rank in (0, 1)
    ]
    for one in waiting:
        one.start()
    mailbox.use(0)
    for one in waiting:
        one.join(5)
    assert taken == [None, None]
    mailbox.submit(task(0, HERE))
    assert mailbox.next_trial("g", 0, 0) is None, "another one takes it"


def test_no_group_comes_up_beyond_what_may_be_up() -> None:
    mailbox, expected = Mailbox(), list[str]()

    def come(group: str) -> None:
        mailbox.expect(group)
        expected.append(group)

    mailbox.use(1)
    come("g")
    second, third = (threading.Thread(target=come, args=(group,)) for group in "hi")
    second.start()
    second.join(0.1)
    assert expected == ["g"]
    mailbox.group_ended("g", "it died", has_died=True)
    second.join(5)
    assert expected == ["g", "h"]
    third.start()
    mailbox.stop()
    third.join(5)
    assert expected == ["g", "h", "i"], "whoever waits as the search stops is let go"


def test_workers_of_a_group_follow_the_first() -> None:
    mailbox, taken = Mailbox(), list[TrialTask | None]()
    come_up(mailbox, workers=2)
    mailbox.submit(task(0, HERE))
    second = threading.Thread(target=lambda: taken.append(mailbox.next_trial("g", 1, 0)))
    second.start()
    second.join(0.1)
    assert taken == []
    assert mailbox.next_trial("g", 0, 0) == task(0, HERE)
    second.join(5)
    assert taken == [task(0, HERE)]


def test_a_trial_that_a_dead_group_never_began_goes_to_another_one() -> None:
    mailbox = Mailbox()
    come_up(mailbox)
    mailbox.submit(task(0, HERE))
    mailbox.next_trial("g", 0, 0)
    assert mailbox.group_ended("g", "it died", has_died=True)
    assert mailbox.next_event(0.01) is None
    assert mailbox.next_trial("g", 0, 1) is None, "a call that the dead one left behind takes nothing"
    come_up(mailbox, "h")
    assert mailbox.next_trial("h", 0, 0) == task(0, HERE)


def test_a_worker_that_stands_still_keeps_no_trial() -> None:
    """It was handed one without hearing of it: the trial goes to another, and if it wakes up it is told to leave."""
    mailbox = Mailbox()
    come_up(mailbox)
    mailbox.submit(task(0, HERE))
    mailbox.next_trial("g", 0, 0)
    assert mailbox.give_up_deaf(60) == []
    assert mailbox.give_up_deaf(0) == [WORKER]
    assert mailbox.give_up_deaf(0) == [], "told once"
    assert not mailbox.begin("g")
    mailbox.group_ended("g", "killed", has_died=True)
    come_up(mailbox, "h")
    assert mailbox.next_trial("h", 0, 0) == task(0, HERE)
    assert mailbox.next_event(0.01) is None


def test_a_group_that_is_about_to_be_killed_gets_no_other_trial() -> None:
    """Its trial may still complete before the kill comes."""
    mailbox = Mailbox()
    given(mailbox)
    mailbox.submit(task(1, HERE))
    assert mailbox.cancel(0, 1) == [WORKER]
    mailbox.post("g", TrialCompleted(0, 1, 0.1, 0.01))
    assert mailbox.next_trial("g", 0, 1) is None
    mailbox.group_ended("g", "killed", has_died=True)
    assert mailbox.next_event(1) == TrialCompleted(0, 1, 0.1, 0.01)
    assert mailbox.next_event(0.01) is None


def test_a_trial_that_is_cancelled_before_its_worker_has_heard_of_it_is_lost() -> None:
    mailbox = Mailbox()
    come_up(mailbox)
    mailbox.submit(task(0, HERE))
    mailbox.next_trial("g", 0, 0)
    assert mailbox.cancel(0, 1) == [WORKER]
    mailbox.group_ended("g", "killed", has_died=True)
    assert mailbox.next_event(1) == TrialLost(0, 1, "killed")


def test_one_trial_is_told_to_end_and_the_next_one_is_not() -> None:
    mailbox = Mailbox()
    given(mailbox)
    mailbox.end_early(0, 7)  # an attempt that does not run is ignored
    assert mailbox.post("g", EpochEnded(0, 1, 1, {}))
    mailbox.end_early(0, 1)
    assert not mailbox.post("g", EpochEnded(0, 1, 2, {}))
    mailbox.post("g", TrialStopped(0, 1))
    mailbox.submit(task(1, HERE))
    assert mailbox.next_trial("g", 0, 1) == task(1, HERE)
    mailbox.begin("g")
    assert mailbox.post("g", EpochEnded(1, 1, 1, {}))


def test_a_group_that_is_retired_ends_its_epoch_and_leaves_with_all_its_workers() -> None:
    mailbox = Mailbox()
    come_up(mailbox, workers=2)
    assert mailbox.workers == 2
    mailbox.submit(task(0, HERE))
    assert {mailbox.next_trial("g", rank, 0) for rank in (0, 1)} == {task(0, HERE)}
    mailbox.begin("g")
    mailbox.retire("gone before")  # is ignored
    assert mailbox.post("g", EpochEnded(0, 1, 1, {}))
    mailbox.retire("g")
    assert not mailbox.post("g", EpochEnded(0, 1, 2, {}))
    mailbox.post("g", TrialStopped(0, 1))
    mailbox.submit(task(1, HERE))
    assert [mailbox.next_trial("g", rank, 1) for rank in (0, 1)] == [None, None]
    mailbox.group_ended("g", "its workers left", has_died=False)
    assert mailbox.workers == 0
    come_up(mailbox, "h")
    assert mailbox.next_trial("h", 0, 0) == task(1, HERE)


def test_who_comes_too_late_is_no_worker_of_anything() -> None:
    mailbox = Mailbox()
    come_up(mailbox)
    mailbox.group_ended("g", "gone", has_died=True)
    assert not mailbox.join("g", WORKER)
    assert not mailbox.begin("g")
    mailbox.submit(task(0, HERE))
    assert mailbox.next_trial("g", 0, 0) is None
    assert not mailbox.post("g", TrialCompleted(0, 1, 0.1, 0.01))
    mailbox.account("g", TrialFailed(0, 1, "late"))
    assert mailbox.next_event(0.01) is None


@pytest.mark.parametrize(
    ("accounts", "has_died", "expected"),
    [
        ([], True, TrialLost(0, 1, "why")),
        ([TrialFailed(0, 1, "ValueError: bad")], False, TrialFailed(0, 1, "ValueError: bad")),
        ([TrialFailed(0, 1, "ValueError: bad")], True, TrialLost(0, 1, "why")),
        (
            [
                TrialFailed(
                    0, 1, "Traceback\n  File x\nDistBackendError: NCCL error\nLast error:\nclosed by remote peer"
                )
            ],
            False,
            TrialLost(0, 1, "why"),
        ),
        ([TrialFailed(0, 1, "RuntimeError: gloo: Connection closed by peer")], False, TrialLost(0, 1, "why")),
        (
            [TrialFailed(0, 1, "RuntimeError: connection reset by peer"), TrialFailed(0, 1, "ValueError: bad")],
            False,
            TrialFailed(0, 1, "ValueError: bad"),
        ),
        (
            [TrialFailed(0, 1, "ValueError: bad"), TrialLost(0, 1, "disk", is_storage=True)],
            False,
            TrialLost(0, 1, "disk", is_storage=True),
        ),
    ],
)
def test_what_several_workers_say_is_settled(
    accounts: list[TrialFailed | TrialLost], has_died: bool, expected: Event
) -> None:
    mailbox = Mailbox()
    given(mailbox)
    for account in accounts:
        mailbox.account("g", account)
    mailbox.group_ended("g", "why", has_died=has_died)
    assert mailbox.next_event(1) == expected
    assert mailbox.next_event(0.01) is None


PLACES = st.integers(0, 2)


class Slots(RuleBasedStateMachine):
    """Three slots whose groups come, train, raise and die in any order, under a controller that gives up and stops.

    Of each dead group a late message comes, which has to change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()
        self.submitted = self.named = 0
        self.groups: dict[int, str] = {}
        self.handed: dict[str, int] = {}
        """How many trials each group has been handed"""
        self.holds: dict[str, TrialTask] = {}
        self.cancelled: set[str] = set()
        self.left: set[str] = set()
        self.may_be_up = 3
        self.told_to_end: set[int] = set()
        self.begun: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.has_stopped = False

    @rule()
    def submit(self) -> None:
        self.mailbox.submit(task(self.submitted, HERE))
        self.submitted += 1

    @rule(place=PLACES)
    def come_up(self, place: int) -> None:
        if place not in self.groups and (len(self.groups) < self.may_be_up or self.has_stopped):  # else it would wait
            self.named += 1
            self.groups[place] = f"group-{self.named}"
            self.handed[self.groups[place]] = 0
            come_up(self.mailbox, self.groups[place])

    @rule(place=PLACES, begins=st.booleans())
    def take(self, place: int, begins: bool) -> None:
        name = self.groups.get(place)
        if name is None or name in self.holds:
            return
        up = [group for group in self.groups.values() if group not in self.cancelled | self.left]
        leaves = self.has_stopped or name in self.cancelled | self.left or len(up) > self.may_be_up
        if not self.mailbox._waiting and not leaves:
            return  # it would wait
        trial = self.mailbox.next_trial(name, 0, self.handed[name])
        assert (trial is None) == leaves
        if trial is None:
            self.left.add(name)
            return
        self.handed[name] += 1
        self.holds[name] = trial
        if begins:
            assert self.mailbox.begin(name)
            self.begun[trial.number] = self.begun.get(trial.number, 0) + 1

    @rule(place=PLACES)
    def complete(self, place: int) -> None:
        name = self.groups.get(place)
        if name in self.holds:
            trial = self.holds.pop(name)
            goes_on = self.mailbox.post(name, EpochEnded(trial.number, 1, 1, {}))
            assert goes_on == (not self.has_stopped and trial.number not in self.told_to_end)
            self.mailbox.post(name, TrialCompleted(trial.number, 1, 0.1, 0.01))
            assert not self.mailbox.post(name, TrialCompleted(trial.number, 1, 0.1, 0.01)), "a double is dropped"

    @rule(place=PLACES)
    def die(self, place: int) -> None:
        name = self.groups.pop(place, None)
        if name is None:
            return
        trial = self.holds.pop(name, None)
        self.mailbox.group_ended(name, "it died", has_died=True)
        if trial is not None:
            waits = any(waiting.number == trial.number for waiting in self.mailbox._waiting)
            is_over = self.has_stopped or trial.number in self.told_to_end
            assert waits == (trial.number not in self.begun and name not in self.cancelled and not is_over)
            assert not self.mailbox.post(name, TrialCompleted(trial.number, 1, 0.1, 0.01))
        assert not self.mailbox.join(name, WORKER)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.submitted - 1))
        killed = self.mailbox.cancel(number, 1)
        holding = {name for name, held in self.holds.items() if held.number == number}
        assert bool(killed) == bool(holding)
        self.cancelled |= holding

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def end_early(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.submitted - 1))
        self.mailbox.end_early(number, 1)
        self.told_to_end.add(number)

    @rule(slots=st.integers(0, 3))
    def use(self, slots: int) -> None:
        self.mailbox.use(slots)
        self.may_be_up = slots

    @rule()
    def stop(self) -> None:
        self.mailbox.stop()
        self.has_stopped = True

    @invariant()
    def each_ends_at_most_once_and_waits_runs_or_has_ended(self) -> None:
        while (event := self.mailbox.next_event(0)) is not None:
            if isinstance(event, TrialEnded):
                self.ended[event.number] = self.ended.get(event.number, 0) + 1
            if isinstance(event, TrialStopped):
                assert self.has_stopped or event.number in self.told_to_end
        assert all(count == 1 for count in self.ended.values())
        assert all(count == 1 for count in self.begun.values())
        waiting = [trial.number for trial in self.mailbox._waiting]
        held = [trial.number for trial in self.holds.values()]
        assert sorted([*waiting, *held, *self.ended]) == list(range(self.submitted))


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
