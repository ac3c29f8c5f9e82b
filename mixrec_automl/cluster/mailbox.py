"""What passes between the controller and the workers of all slots: trials one way, events the other.

Any worker group that is free takes the next trial. Whatever happens to a group, exactly one `TrialEnded` follows each
trial that was put in. Nothing here is truth: that is the database's.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    MachinesChanged,
    SlotsWaiting,
    TrialBegan,
    TrialEnded,
    TrialFailed,
    TrialLost,
    TrialStopped,
)
from mixrec_automl.cluster.training import TrialTask

LOST_CONNECTION = (
    "closed by peer",
    "closed by remote peer",
    "reset by peer",
    "remote process exit",
    "gloo",
    "nccl",
    "distnetworkerror",
    "distbackenderror",
)
"""In the error of a worker whose fellow has died: the death, not this error, is what happened."""


@dataclass(frozen=True)
class WorkerProcess:
    """Where a worker runs."""

    node: str
    pid: int


@dataclass
class _Group:
    """The workers of one slot, from their start to their end."""

    workers: list[WorkerProcess] = field(default_factory=list)
    taken: list[TrialTask] = field(default_factory=list)
    """All trials that the group was handed, in order"""
    holds: TrialTask | None = None
    has_begun: bool = False
    """Whether the group knows of the trial that it holds, rather than having died before it heard"""
    held_since: float = 0.0
    is_given_up: bool = False
    """Its workers are about to be killed, or leave: nothing is handed to them any more"""
    is_cancelled: bool = False
    """The trial that it holds is to end with it"""
    is_ending: bool = False
    """The trial that it holds is told to stop at its next epoch"""
    accounts: list[TrialEnded] = field(default_factory=list)
    """What single workers of several say of its end"""


class Mailbox:
    """Used from many threads at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[TrialTask] = deque()
        self._groups: dict[str, _Group] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._slots = math.inf
        self._is_stopping = False

    # The controller's side

    def submit(self, trial: TrialTask) -> None:
        with self._changed:
            if self._is_stopping:
                self._events.put(TrialStopped(trial.number, trial.attempt))
                return
            self._waiting.append(trial)
            self._changed.notify_all()

    def next_event(self, timeout: float) -> Event | None:
        """The oldest event, waiting up to `timeout` seconds; None where none came."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def use(self, slots: int) -> None:
        """Keep at most so many groups: those beyond leave once they hold no trial. No limit before the first call."""
        with self._changed:
            self._slots = slots
            self._changed.notify_all()

    def end_early(self, number: int, attempt: int) -> None:
        """Answer the next epoch of the attempt with "stop"; where no slot has taken it, it ends now."""
        with self._changed:
            for trial in self._waiting:
                if (trial.number, trial.attempt) == (number, attempt):
                    self._waiting.remove(trial)
                    self._events.put(TrialStopped(number, attempt))
                    return
            for group in self._groups.values():
                if group.holds is not None and (group.holds.number, group.holds.attempt) == (number, attempt):
                    group.is_ending = True

    def retire(self, group: str) -> None:
        """Answer the next epoch of `group` with "stop", and let its workers leave then: another one takes its place."""
        with self._changed:
            if group in self._groups:
                self._groups[group].is_ending = self._groups[group].is_given_up = True

    def cancel(self, number: int, attempt: int) -> list[WorkerProcess]:
        """The workers to be killed so that the attempt ends; none where it had not begun, or has ended."""
        with self._changed:
            for trial in self._waiting:
                if (trial.number, trial.attempt) == (number, attempt):
                    self._waiting.remove(trial)
                    self._events.put(TrialLost(number, attempt, "it was given up before a slot had taken it"))
                    return []
            for group in self._groups.values():
                if group.holds is not None and (group.holds.number, group.holds.attempt) == (number, attempt):
                    group.is_given_up = group.is_cancelled = True
                    return list(group.workers)
        return []

    def stop(self) -> None:
        """Hand out nothing more, and answer each epoch with "stop"."""
        with self._changed:
            self._is_stopping = True
            while self._waiting:
                trial = self._waiting.popleft()
                self._events.put(TrialStopped(trial.number, trial.attempt))
            self._changed.notify_all()

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    def wait_for_stop(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as `stop` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, timeout=seconds)

    # The workers' side

    def expect(self, group: str) -> None:
        """The workers of `group` are about to come up; waits until there may be one more, or none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or len(self._groups) < self._slots)
            self._groups[group] = _Group()

    def join(self, group: str, worker: WorkerProcess) -> bool:
        """A worker of `group` has come up. Answers whether it is expected still."""
        with self._changed:
            if group in self._groups:
                self._groups[group].workers.append(worker)
            return group in self._groups

    def next_trial(self, group: str, rank: int, position: int) -> TrialTask | None:
        """The trial that all workers of `group` train as their `position`-th, from 0; None: leave.

        Waits until there is one. The first worker takes it, and the others follow.
        """
        with self._changed:
            while True:
                mine = self._groups.get(group)
                if mine is None or mine.is_given_up:
                    return None
                if position < len(mine.taken):
                    return mine.taken[position]
                if self._is_stopping:
                    return None
                if rank == 0 and mine.holds is None and self._up > self._slots:
                    mine.is_given_up = True
                    self._changed.notify_all()
                elif rank == 0 and mine.holds is None and self._waiting:
                    mine.holds, mine.has_begun, mine.is_ending = self._waiting.popleft(), False, False
                    mine.held_since = time.monotonic()
                    mine.taken.append(mine.holds)
                    self._changed.notify_all()
                else:
                    self._changed.wait()

    def begin(self, group: str) -> bool:
        """The first worker of `group` has heard of its trial. Answers whether it is to train it."""
        with self._changed:
            mine = self._groups.get(group)
            if mine is None or mine.holds is None or mine.is_given_up:
                return False
            mine.has_begun = True
            self._events.put(TrialBegan(mine.holds.number, mine.holds.attempt))
            return True

    def give_up_deaf(self, seconds: float) -> list[WorkerProcess]:
        """The workers of groups that were handed a trial longer ago than this and have not begun it: to be killed."""
        now, deaf = time.monotonic(), []
        with self._changed:
            for group in self._groups.values():
                is_late = group.holds is not None and not group.has_begun and now - group.held_since > seconds
                if is_late and not group.is_given_up:
                    group.is_given_up = True
                    deaf += group.workers
        return deaf

    def tell(self, event: SlotsWaiting | MachinesChanged) -> None:
        """Pass on what concerns no single trial."""
        self._events.put(event)

    def post(self, group: str, event: EpochEnded | TrialEnded) -> bool:
        """An event of the trial that `group` holds. Answers whether to go on; one of another trial is dropped."""
        with self._changed:
            held = self._held(group, event)
            if held is None:
                return False
            self._events.put(event)
            if not isinstance(event, EpochEnded):
                held.holds = None
                self._changed.notify_all()
            return not (self._is_stopping or held.is_ending)

    def account(self, group: str, ended: TrialEnded) -> None:
        """How the trial ended for one of several workers; what it comes to is settled once all have ended."""
        with self._changed:
            held = self._held(group, ended)
            if held is not None:
                held.accounts.append(ended)

    def group_ended(self, group: str, reason: str, *, has_died: bool) -> bool:
        """All workers of `group` have ended; called once for each group, after its last worker.

        Args:
            reason: in words.
            has_died: whether one of them died, rather than raised.

        Returns:
            Whether the group had come up at all.
        """
        with self._changed:
            gone = self._groups.pop(group, _Group())
            if gone.holds is not None and (gone.has_begun or gone.is_cancelled):
                self._events.put(_settle(gone.holds, gone.accounts, reason, has_died=has_died))
            elif gone.holds is not None and (self._is_stopping or gone.is_ending):
                self._events.put(TrialStopped(gone.holds.number, gone.holds.attempt))
            elif gone.holds is not None:
                self._waiting.appendleft(gone.holds)
            self._changed.notify_all()
            return bool(gone.workers)

    @property
    def workers(self) -> int:
        """How many have come up, of all groups that have not ended."""
        with self._changed:
            return sum(len(group.workers) for group in self._groups.values())

    @property
    def _up(self) -> int:
        """Groups that have come up and are not about to end. Those that come up still hold nothing, and are not sent
        away: they leave as they arrive."""
        return sum(bool(group.workers) and not group.is_given_up for group in self._groups.values())

    def _held(self, group: str, event: EpochEnded | TrialEnded) -> _Group | None:
        held = self._groups.get(group)
        if held is None or held.holds is None:
            return None
        return held if (held.holds.number, held.holds.attempt) == (event.number, event.attempt) else None


def _settle(trial: TrialTask, accounts: list[TrialEnded], reason: str, *, has_died: bool) -> TrialEnded:
    """The worst that is known for certain: a death or a full disk before an error that may only follow from it."""
    lost = [one for one in accounts if isinstance(one, TrialLost)]
    failed = [one for one in accounts if isinstance(one, TrialFailed) and not _follows_from_death(one)]
    if lost and not has_died:
        return lost[0]
    if failed and not has_died:
        return failed[0]
    return TrialLost(trial.number, trial.attempt, reason)


def _follows_from_death(failed: TrialFailed) -> bool:
    error = failed.error.lower().rpartition("traceback")[2]
    message = "\n".join(line for line in error.splitlines() if not line.startswith(" "))  # without lines of code
    return any(sign in message for sign in LOST_CONNECTION)
