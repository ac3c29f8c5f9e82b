"""Algorithm 1 of the paper (2.3.3, Appendix E) as an asynchronous loop: keep the slots busy, record, propose again.

The controller is the only writer of its search, and the database the only place where its progress is kept: a search
that was interrupted, in whatever way, goes on from what is recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from mixrec_automl.cluster.executor import EpochEnded, Event, Executor, TrialCompleted, TrialFailed, TrialStopped
from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.search.proposer import Proposal, Proposer, SpaceExhausted
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import Search, SearchState, Trial, TrialState
from mixrec_automl.store.repository import Repository

POLL_SECONDS = 0.2
"""How long the loop waits for an event before it looks at everything else."""
STOP_SECONDS = 3.0
"""How long a stopped search waits for trials that are about to end; the others are run again later."""
PROPOSAL_SECONDS = 10.0
"""How long it waits for a proposal: a thread in the midst of linear algebra cannot be left to the interpreter's end."""
LEAST_ENDED = 4
"""Ended trials before the share of failures says anything."""


class SearchListener(Protocol):
    """Watches a search; called from the loop's thread, so an implementation returns quickly."""

    def proposing(self) -> None:
        """The next design has been asked for."""

    def trial_changed(self, trial: Trial) -> None:
        """A trial is new or in another state."""

    def epoch_ended(self, event: EpochEnded) -> None:
        """A running trial has finished an epoch."""

    def stopping(self) -> None:
        """No trial is started any more; those that run are asked to end."""


@dataclass(frozen=True)
class SearchParts:
    """What a search is run with."""

    repository: Repository
    proposer: Proposer
    executor: Executor
    listener: SearchListener
    wake: Callable[[], None]
    """Called after each write: there is something new to show elsewhere."""


def run_search(
    name: str, budget: BudgetConfig, slots: int, folder: Path, parts: SearchParts, stop: threading.Event
) -> Search:
    """Run search `name` until its budget is spent, it is stopped or it fails; also goes on with one that was.

    Trials that a former controller left RUNNING are run again, and so are, in a later run, those that this one leaves.

    Args:
        folder: checkpoints of trial 7 lie in its subfolder `trials/7`.
        stop: once set, no trial is started any more, and what does not end within `STOP_SECONDS` is left for later.

    Returns:
        The search as recorded: COMPLETED, STOPPED or FAILED. It is FAILED where the share of failed trials is above
        `budget.max_failure_rate` or none was completed.

    Raises:
        Exception: whatever the parts raise, after the search has been recorded as FAILED.
        KeyboardInterrupt: after the search has been recorded as STOPPED.
    """
    repository = parts.repository
    repository.set_search_state(name, SearchState.RUNNING)
    try:
        state, error = _Loop(name, budget, slots, folder, parts, stop).run()
    except BaseException as raised:
        interrupted = isinstance(raised, KeyboardInterrupt)
        _requeue_running(name, repository)
        _finish(name, parts, SearchState.STOPPED if interrupted else SearchState.FAILED, _last_line(repr(raised)))
        raise
    _requeue_running(name, repository)
    return _finish(name, parts, state, error)


class _Loop:
    """The state of one run of `run_search`."""

    def __init__(
        self, name: str, budget: BudgetConfig, slots: int, folder: Path, parts: SearchParts, stop: threading.Event
    ) -> None:
        self._name, self._budget, self._slots, self._folder = name, budget, slots, folder
        self._parts, self._stop = parts, stop
        self._repository, self._executor, self._listener = parts.repository, parts.executor, parts.listener
        self._running: dict[int, int] = {}
        """Attempt of each trial that is with the executor."""
        self._proposal: Future[Proposal] | None = None
        self._exhausted = False
        self._ended = self._failed = 0
        """Of this run, so that a search can be resumed once the cause of its failures is mended."""
        self._last_error = ""

    def run(self) -> tuple[SearchState, str | None]:
        """The state to record, with the reason where it is FAILED."""
        for trial in _requeue_running(self._name, self._repository):
            self._announce(trial)
        while not self._stop.is_set():
            if self._ended >= LEAST_ENDED and self._failed > self._budget.max_failure_rate * self._ended:
                self._wind_down()
                return SearchState.FAILED, (
                    f"{self._failed} of {self._ended} trials failed, more than search.max_failure_rate = "
                    f"{self._budget.max_failure_rate:g} allows; the last error: {self._last_error}"
                )
            self._fill_slots()
            if not self._running and self._proposal is None:
                return self._outcome()
            self._record(self._executor.next_event(POLL_SECONDS))
        self._wind_down()
        trials = self._trials()
        if len(trials) >= self._budget.trials and all(trial.state.is_final for trial in trials):
            return self._outcome()
        return SearchState.STOPPED, None

    def _fill_slots(self) -> None:
        """Start trials that wait, then ask for a design where a slot is still free: one at a time, as each one that
        is pending changes the next proposal."""
        self._take_proposal()
        if self._proposal is not None or len(self._running) >= self._slots:
            return
        waiting = [trial for trial in self._trials() if trial.state is TrialState.QUEUED]
        for trial in waiting[: self._slots - len(self._running)]:
            self._start(trial)
        trials = self._trials()
        if len(self._running) < self._slots and len(trials) < self._budget.trials and not self._exhausted:
            self._listener.proposing()
            self._proposal = _in_thread(lambda: self._propose(trials))

    def _propose(self, trials: tuple[Trial, ...]) -> Proposal:
        torch.set_num_threads(1)  # of this thread only: the cores belong to the trials
        return self._parts.proposer.propose(trials, seed=self._budget.seed)

    def _take_proposal(self) -> None:
        """Record the design of a proposal that has come."""
        if self._proposal is None or not self._proposal.done():
            return
        future, self._proposal = self._proposal, None
        try:
            proposal = future.result()
        except SpaceExhausted:
            self._exhausted = True
            return
        # All trials share the training seed: common random numbers take its noise out of their comparison.
        trial = self._repository.add_trial(
            self._name, proposal.architecture, self._budget.seed, proposal.origin, proposal.seconds
        )
        self._announce(trial)

    def _start(self, trial: Trial) -> None:
        started = self._repository.start_trial(self._name, trial.number)
        self._announce(started)
        self._running[started.number] = started.attempt
        folder = self._folder / "trials" / str(started.number)
        self._executor.submit(
            TrialTask(started.number, started.attempt, started.architecture, started.seed, folder.absolute())
        )

    def _record(self, event: Event | None) -> None:
        if event is None or self._running.get(event.number) != event.attempt:
            return
        name, number, attempt = self._name, event.number, event.attempt
        if isinstance(event, EpochEnded):
            self._repository.record_epoch(name, number, attempt, event.epoch, event.metrics)
            self._listener.epoch_ended(event)
            self._parts.wake()
            return
        if isinstance(event, TrialCompleted):
            trial = self._repository.complete_trial(name, number, attempt, event.mrr, event.standard_error)
            self._ended += 1
        elif isinstance(event, TrialFailed):
            trial = self._repository.fail_trial(name, number, attempt, event.error)
            self._ended += 1
            self._failed += 1
            self._last_error = _last_line(event.error)
        elif isinstance(event, TrialStopped):
            trial = self._repository.requeue_trial(name, number)
        del self._running[number]
        self._announce(trial)

    def _wind_down(self) -> None:
        """Record what ends within the grace; a proposal that comes now is dropped, as it can be made again."""
        self._listener.stopping()
        self._executor.stop()
        began = time.monotonic()
        while (self._running and time.monotonic() - began < STOP_SECONDS) or (
            self._is_proposing() and time.monotonic() - began < PROPOSAL_SECONDS
        ):
            self._record(self._executor.next_event(POLL_SECONDS))

    def _is_proposing(self) -> bool:
        return self._proposal is not None and not self._proposal.done()

    def _outcome(self) -> tuple[SearchState, str | None]:
        if any(trial.state is TrialState.COMPLETED for trial in self._trials()):
            return SearchState.COMPLETED, None
        return SearchState.FAILED, f"no trial was completed; the last error: {self._last_error}"

    def _trials(self) -> tuple[Trial, ...]:
        return self._repository.trials(self._name)

    def _announce(self, trial: Trial) -> None:
        self._listener.trial_changed(trial)
        self._parts.wake()


def _in_thread(function: Callable[[], Proposal]) -> Future[Proposal]:
    """Call `function` in a thread that does not keep the process alive, as those of a `ThreadPoolExecutor` would."""
    future: Future[Proposal] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # handed to whoever takes the result
            future.set_exception(error)

    threading.Thread(target=call, name="proposal", daemon=True).start()
    return future


def _requeue_running(name: str, repository: Repository) -> list[Trial]:
    running = [trial for trial in repository.trials(name) if trial.state is TrialState.RUNNING]
    return [repository.requeue_trial(name, trial.number) for trial in running]


def _finish(name: str, parts: SearchParts, state: SearchState, error: str | None) -> Search:
    search = parts.repository.set_search_state(name, state, error if state is SearchState.FAILED else None)
    parts.wake()
    return search


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "unknown"
