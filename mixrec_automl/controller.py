"""Algorithm 1 of the paper (2.3.3, Appendix E) as an asynchronous loop: keep the slots busy, record, propose again.

The controller holds the lease of its search and is the only one that writes it. The database is the only place where
progress is kept: a search that was interrupted, in whatever way, goes on from what is recorded. What is in memory here
is a copy of it, brought up to date by each write.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mixrec_automl.cluster.executor import (
    EpochEnded,
    Event,
    Executor,
    ExecutorDied,
    MachinesChanged,
    SlotsWaiting,
    TrialBegan,
    TrialCompleted,
    TrialFailed,
    TrialLost,
    TrialStopped,
)
from mixrec_automl.cluster.lasting_executor import LastingExecutor
from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.cluster.watchdog import Watchdog
from mixrec_automl.cluster_share import ClusterShare
from mixrec_automl.interruption import StopRequest
from mixrec_automl.patience import Patience
from mixrec_automl.recorded_trials import RecordedTrials
from mixrec_automl.search.proposer import Proposal, Proposer, SpaceExhausted
from mixrec_automl.search.pruning import reason_to_prune
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.search_listener import SearchListener
from mixrec_automl.storage_trouble import StorageTrouble
from mixrec_automl.store.errors import DatabaseUnavailableError, LeaseLostError
from mixrec_automl.store.records import Observation, Origin, Search, SearchState, Trial, TrialState
from mixrec_automl.store.writer import SearchWriter
from trainers.errors import last_line

POLL_SECONDS, POLL_SECONDS_WHEN_IDLE = 0.2, 0.02
"""How long the loop waits for an event before it looks at everything else; briefly while a slot waits for a design."""
STOP_SECONDS = 3.0
"""How long a stopped search waits for trials that are about to end; the others are run again later."""
PROPOSAL_SECONDS = 10.0
"""How long it waits for a proposal: a thread in the midst of linear algebra cannot be left to the interpreter's end."""
LEAST_ENDED = 4
"""Ended trials before the share of failures says anything."""


@dataclass(frozen=True)
class SearchParts:
    """What a search is run with."""

    writer: SearchWriter
    trials: tuple[Trial, ...]
    """Recorded before, read under the lease"""
    observations: tuple[Observation, ...]
    """The epochs of those trials"""
    epochs: int
    """Of a whole training"""
    proposer: Proposer
    make_executor: Callable[[], Executor]
    """Called again where an executor has died"""
    listener: SearchListener
    wake: Callable[[], None]
    """Called after each write: there is something new to show elsewhere."""
    share: ClusterShare | None = None
    """Of a cluster that other searches use as well; None: all slots are this search's own"""


def run_search(budget: BudgetConfig, slots: int, folder: Path, parts: SearchParts, stop: StopRequest) -> Search:
    """Run the search that `parts.writer` writes until its budget is spent, it is stopped or it fails.

    Trials that a former controller left RUNNING are run again, and so are, in a later run, those that this one leaves.

    Args:
        folder: checkpoints of trial 7 lie in its subfolder `trials/7`.
        stop: once set, no trial is started any more, and what does not end within `STOP_SECONDS` is left for later.

    Returns:
        The search as recorded: COMPLETED, STOPPED or FAILED. It is FAILED where the share of failed trials is above
        `budget.max_failure_rate`, none was completed, the storage stays away or no worker comes up.

    Raises:
        LeaseLostError: another process has taken the search over; nothing is recorded of the end of this one.
        DatabaseUnavailableError: the search was to stop and the database did not answer.
        Exception: whatever the parts raise, after the search has been recorded as FAILED.
        KeyboardInterrupt: after the search has been recorded as STOPPED.
    """
    loop = _Loop(budget, slots, folder, parts, stop)
    try:
        state, error = loop.run()
    except ExecutorDied as died:
        state, error = SearchState.FAILED, str(died)
    except (LeaseLostError, DatabaseUnavailableError):
        loop.close()
        raise
    except BaseException as raised:
        loop.close()
        state = SearchState.STOPPED if isinstance(raised, KeyboardInterrupt) else SearchState.FAILED
        with contextlib.suppress(LeaseLostError, DatabaseUnavailableError):  # `raised` says more
            loop.finish_soon(state, last_line(repr(raised)))
        raise
    # Before the trials that still run are queued again: whoever resumes them must be alone with their checkpoints.
    loop.close()
    return loop.finish(state, error)


class _Loop:
    """The state of one run of `run_search`."""

    def __init__(self, budget: BudgetConfig, slots: int, folder: Path, parts: SearchParts, stop: StopRequest) -> None:
        self._budget, self._most_slots, self._folder, self._parts, self._stop = budget, slots, folder, parts, stop
        self._listener = parts.listener
        self._patiently = Patience(stop, parts.listener.notice)
        self._trials = RecordedTrials(parts.writer, parts.trials, parts.observations, self._patiently, self._announce)
        self._executor: Executor = LastingExecutor(parts.make_executor, Watchdog(budget.hang_seconds))
        self._storage = StorageTrouble(parts.listener.notice)
        self._proposal: Future[Proposal | None] | None = None
        self._exhausted = False
        self._asked_after, self._to_wait_after = 0, -1
        """How many trials of this run had ended when a proposal was asked for, and when there was none yet"""
        self._must_wait = False
        """Whether the last proposal was none: the next designs hang on the results of what is under way"""
        self._given_up: dict[int, str] = {}
        """Running trials that were told to end early, with the reason"""
        self._yielding: set[int] = set()
        """Running trials that were told to end because their slot is another search's now"""
        self._ended = self._failed = 0
        """Of this run, so that a search can be resumed once the cause of its failures is mended."""
        failed = [trial.error for trial in parts.trials if trial.state is TrialState.FAILED and trial.error]
        self._last_error = last_line(failed[-1]) if failed else ""

    def run(self) -> tuple[SearchState, str | None]:
        """The state to record, with the reason where it is FAILED."""
        self._patiently(partial(self._parts.writer.set_state, SearchState.RUNNING))
        self._trials.requeue_running()
        while not self._stop.is_set():
            reason = self._reason_to_give_up()
            if reason is not None:
                self._wind_down()
                return SearchState.FAILED, reason
            self._take_proposal()
            self._keep_to_share()
            self._start_waiting()
            self._ask_for_design()
            if not self._waiting and not self._running and self._proposal is None:
                return self._outcome()
            self._record(self._executor.next_event(self._poll_seconds))
        self._wind_down()
        trials = self._trials.all()
        if len(trials) >= self._budget.trials and all(trial.state.is_final for trial in trials):
            return self._outcome()
        return SearchState.STOPPED, None

    def close(self) -> None:
        """End what still runs."""
        self._executor.close()

    def finish(self, state: SearchState, error: str | None) -> Search:
        """Record how it ended, queue what still ran, and let the search go."""
        self._trials.requeue_running()
        told = error if state is SearchState.FAILED else None
        search = self._patiently(partial(self._parts.writer.set_state, state, told))
        with contextlib.suppress(DatabaseUnavailableError):  # the lease then runs out by itself
            self._parts.writer.release()
        self._parts.wake()
        return search

    def finish_soon(self, state: SearchState, error: str) -> None:
        """The same, without patience for a database that is away."""
        self._patiently.hurry()
        self.finish(state, error)

    @property
    def _waiting(self) -> list[Trial]:
        return self._trials.in_state(TrialState.QUEUED)

    @property
    def _running(self) -> list[Trial]:
        return self._trials.in_state(TrialState.RUNNING)

    @property
    def _poll_seconds(self) -> float:
        is_idle = self._is_proposing and len(self._running) < self._slots
        return POLL_SECONDS_WHEN_IDLE if is_idle else POLL_SECONDS

    # Slots

    @property
    def _slots(self) -> int:
        """That it may use now"""
        return self._most_slots if self._parts.share is None else self._parts.share.slots

    @property
    def _slots_wanted(self) -> int:
        to_come = 0 if self._must_wait or self._exhausted else self._budget.trials - len(self._trials)
        return min(self._most_slots, len(self._waiting) + len(self._running) + to_come)

    def _keep_to_share(self) -> None:
        """Bring slots up and give them back as other searches of the cluster come and go."""
        share = self._parts.share
        if share is None or not share.look(self._slots_wanted):
            return
        self._executor.use(share.slots)
        self._listener.sharing(share.note)
        staying = [trial for trial in self._running if trial.number not in {*self._given_up, *self._yielding}]
        for trial in staying[share.slots :]:  # the newest; each goes on after its epoch, as soon as there is a slot
            self._yielding.add(trial.number)
            self._executor.end_early(trial.number, trial.attempt)

    # Proposals

    def _ask_for_design(self) -> None:
        """One proposal at a time, as each one that is pending changes the next.

        Where trials run side by side, a design is kept waiting so that a slot that becomes free starts at once. With
        one slot there is nothing to gain: the design would not know of the one result that it follows.
        """
        if self._proposal is not None or self._exhausted or len(self._trials) >= self._budget.trials:
            return
        if self._ended == self._to_wait_after:
            return
        if not self._is_confirming and (self._waiting or (self._slots <= 1 and self._running)):
            return
        self._listener.proposing()
        self._asked_after = self._ended
        self._proposal = _in_thread(partial(self._parts.proposer.propose, self._trials.all(), seed=self._budget.seed))

    def _take_proposal(self) -> None:
        """Record what has been proposed, once for each of its training seeds."""
        if self._proposal is None or not self._proposal.done():
            return
        future, self._proposal = self._proposal, None
        try:
            proposal = future.result()
        except SpaceExhausted:
            self._exhausted = True
            return
        self._must_wait = proposal is None
        if proposal is None:
            self._to_wait_after = self._asked_after
            return
        # All designs share the training seed: common random numbers take their noise out of the comparison.
        seeds = proposal.seeds or (self._budget.seed,)
        self._listener.proposed(proposal)
        self._trials.add(proposal, seeds[: self._budget.trials - len(self._trials)])

    @property
    def _is_confirming(self) -> bool:
        """Whether the confirmation is being recorded: all of it, before any is trained, for it decides as a whole."""
        count = len(self._trials)
        is_open = not self._exhausted and 0 < count < self._budget.trials
        return is_open and self._trials[count - 1].origin is Origin.CONFIRMATION

    @property
    def _is_proposing(self) -> bool:
        return self._proposal is not None and not self._proposal.done()

    # Trials

    def _start_waiting(self) -> None:
        if self._is_confirming or self._storage.must_wait:
            return
        free = max(0, self._slots - len(self._running))  # less than none where slots are being given away
        for waiting in self._waiting[:free]:
            trial = self._trials.start(waiting.number)
            folder = (self._folder / "trials" / str(trial.number)).absolute()
            known = self._trials.epochs_of(trial.number)
            # A former controller may have given it up, and gone away before the trial had ended.
            reason = self._reason_to_prune(trial.number, known)
            if reason is not None:
                self._prune(trial.number, reason)
                continue
            task = TrialTask(trial.number, trial.attempt, trial.design, trial.seed, folder, trial.variant, known)
            self._executor.submit(task)

    def _record(self, event: Event | None) -> None:
        if isinstance(event, SlotsWaiting):
            self._listener.notice(event.why)
            return
        if isinstance(event, MachinesChanged):
            if self._parts.share is not None:
                self._parts.share.machines = event.machines
            return
        if event is None or not self._trials.is_running(event.number, event.attempt):
            return
        if isinstance(event, EpochEnded):
            self._trials.record_epoch(event)
            self._storage.worked(event.number)
            self._listener.epoch_ended(event)
            self._parts.wake()
            self._judge(event)
            return
        if isinstance(event, TrialBegan):
            return
        self._yielding.discard(event.number)
        reason = self._given_up.pop(event.number, None)
        if isinstance(event, TrialCompleted):  # also one that was told to end and was done before it heard
            self._trials.complete(event)
            self._ended += 1
        elif isinstance(event, TrialFailed):
            self._fail(event.number, event.error)
        elif reason is not None:
            self._prune(event.number, reason)
        elif isinstance(event, TrialStopped):
            self._trials.requeue(event.number)
        else:
            self._lose(event)

    def _judge(self, event: EpochEnded) -> None:
        """Tell the trial to end if its curve promises too little; what it is recorded as, its end decides."""
        if event.number in self._given_up:
            return
        reason = self._reason_to_prune(event.number, event.epoch)
        if reason is not None:
            self._given_up[event.number] = reason
            self._executor.end_early(event.number, event.attempt)

    def _reason_to_prune(self, number: int, epoch: int) -> str | None:
        if epoch + 1 >= self._parts.epochs:  # it has ended, or is in its last epoch
            return None
        trials = self._trials
        return reason_to_prune(self._budget.pruning, trials[number], epoch, trials.all(), trials.curves)

    def _prune(self, number: int, reason: str) -> None:
        self._trials.prune(number, reason)
        self._ended += 1

    def _lose(self, event: TrialLost) -> None:
        """Queue the trial again, unless it has been lost too often through what may be its own doing."""
        losses = self._trials[event.number].losses + 1
        is_blameless = not event.has_begun
        if event.is_storage:
            is_blameless = self._storage.failed(event.number, last_line(event.reason))
        if is_blameless:
            self._trials.requeue(event.number)
        elif losses < self._budget.max_attempts:
            self._trials.requeue(event.number, lost=event.reason)
        else:
            self._fail(event.number, f"lost {losses} times, the last time like this:\n{event.reason}")

    def _fail(self, number: int, error: str) -> None:
        self._trials.fail(number, error)
        self._ended += 1
        self._failed += 1
        self._last_error = last_line(error)

    def _announce(self, trial: Trial) -> None:
        self._listener.trial_changed(trial)
        self._parts.wake()

    # The end

    def _reason_to_give_up(self) -> str | None:
        if self._ended >= LEAST_ENDED and self._failed > self._budget.max_failure_rate * self._ended:
            return (
                f"{self._failed} of {self._ended} trials failed, more than search.max_failure_rate = "
                f"{self._budget.max_failure_rate:g} allows; the last error: {self._last_error}"
            )
        return self._storage.reason_to_give_up

    def _wind_down(self) -> None:
        """Record what ends within the grace; a proposal that comes now is dropped, as it can be made again."""
        self._listener.stopping()
        self._executor.stop()
        began = time.monotonic()
        while (self._running and time.monotonic() - began < STOP_SECONDS) or (
            self._is_proposing and time.monotonic() - began < PROPOSAL_SECONDS
        ):
            self._record(self._executor.next_event(POLL_SECONDS))

    def _outcome(self) -> tuple[SearchState, str | None]:
        if self._trials.in_state(TrialState.COMPLETED):
            return SearchState.COMPLETED, None
        return SearchState.FAILED, f"no trial was completed; the last error: {self._last_error}"


def _in_thread(function: Callable[[], Proposal | None]) -> Future[Proposal | None]:
    """Call `function` in a thread that does not keep the process alive, as those of a `ThreadPoolExecutor` would."""
    future: Future[Proposal | None] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # handed to whoever takes the result
            future.set_exception(error)

    threading.Thread(target=call, name="proposal", daemon=True).start()
    return future
