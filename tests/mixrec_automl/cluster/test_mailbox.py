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


def given(mailbox: Mailbox, number: int = 0, group: str = "g") -> TrialTask:
    """Trial `number` in the hands of `group`."""
    trial = task(number, HERE)
    mailbox.join(group, WORKER)
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
    mailbox.join("g", WORKER)
    waiting = threading.Thread(target=lambda: taken.append(mailbox.next_trial("g", 0, 0)))
    waiting.start()
    mailbox.stop()
    waiting.join(5)
    assert taken == [None]


def test_workers_of_a_group_follow_the_first() -> None:
    mailbox, taken = Mailbox(), list[TrialTask | None]()
    for _ in range(2):
        mailbox.join("g", WORKER)
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
    mailbox.join("g", WORKER)
    mailbox.submit(task(0, HERE))
    mailbox.next_trial("g", 0, 0)
    assert mailbox.group_ended("g", "it died", has_died=True)
    assert mailbox.next_event(0.01) is None
    assert mailbox.next_trial("g", 0, 1) is None, "a call that the dead one left behind takes nothing"
    mailbox.join("h", WORKER)
    assert mailbox.next_trial("h", 0, 0) == task(0, HERE)


@pytest.mark.parametrize(
    ("accounts", "has_died", "expected"),
    [
        ([], True, TrialLost(0, 1, "why")),
        ([TrialFailed(0, 1, "ValueError: bad")], False, TrialFailed(0, 1, "ValueError: bad")),
        ([TrialFailed(0, 1, "ValueError: bad")], True, TrialLost(0, 1, "why")),
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


class Slots(RuleBasedStateMachine):
    """Three groups that come, train, raise and die in any order, under a controller that gives up and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()
        self.submitted = 0
        self.groups: dict[str, int] = {}
        """How many trials each has been handed"""
        self.holds: dict[str, TrialTask] = {}
        self.begun: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.has_stopped = False

    @rule()
    def submit(self) -> None:
        self.mailbox.submit(task(self.submitted, HERE))
        self.submitted += 1

    @rule(name=st.sampled_from("abc"))
    def come_up(self, name: str) -> None:
        if name not in self.groups:
            self.groups[name] = 0
            self.mailbox.join(name, WORKER)

    @rule(name=st.sampled_from("abc"), begins=st.booleans())
    def take(self, name: str, begins: bool) -> None:
        is_free = name in self.groups and name not in self.holds
        if not is_free or not (self.mailbox._waiting or self.has_stopped):
            return  # it would wait
        trial = self.mailbox.next_trial(name, 0, self.groups[name])
        if trial is None:
            assert self.has_stopped
            return
        self.groups[name] += 1
        self.holds[name] = trial
        if begins:
            self.mailbox.begin(name)
            self.begun[trial.number] = self.begun.get(trial.number, 0) + 1

    @rule(name=st.sampled_from("abc"))
    def complete(self, name: str) -> None:
        if name in self.holds:
            trial = self.holds.pop(name)
            self.mailbox.post(name, EpochEnded(trial.number, 1, 1, {}))
            self.mailbox.post(name, TrialCompleted(trial.number, 1, 0.1, 0.01))
            self.mailbox.post(name, TrialCompleted(trial.number, 1, 0.1, 0.01))  # a late double is dropped

    @rule(name=st.sampled_from("abc"))
    def die(self, name: str) -> None:
        if self.groups.pop(name, None) is not None:
            self.holds.pop(name, None)
            self.mailbox.group_ended(name, "it died", has_died=True)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.submitted - 1))
        killed = self.mailbox.cancel(number, 1)
        assert bool(killed) == any(held.number == number for held in self.holds.values())

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
                assert self.has_stopped
        assert all(count == 1 for count in self.ended.values())
        assert all(count == 1 for count in self.begun.values())
        waiting = [trial.number for trial in self.mailbox._waiting]
        held = [trial.number for trial in self.holds.values()]
        assert sorted([*waiting, *held, *self.ended]) == list(range(self.submitted))


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
