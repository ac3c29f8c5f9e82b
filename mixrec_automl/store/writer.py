"""What the controller of a search writes: each transaction holds only while its lease does.

A search has one lease at a time, with a *term* that grows by one whenever the lease changes hands. Every write locks
the search's row and compares terms, so that a controller that was replaced (it slept, or its network did) changes
nothing any more, however late it wakes up. Every write about a trial also names the attempt it belongs to.

Each write can be repeated: after an outage nobody knows whether the last one arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixrec_automl.store.clock import seconds_now
from mixrec_automl.store.convert import to_search, to_trial
from mixrec_automl.store.errors import LeaseLostError, WrongStateError
from mixrec_automl.store.models import ObservationRow, SearchRow, TrialRow
from mixrec_automl.store.records import Lease, Origin, Search, SearchState, Trial, TrialState
from mixrec_automl.store.rows import check_attempt, check_state, finite, search_row, storable, trial_row
from mixrec_automl.store.transactions import Transactions
from search_spaces.design import Design

NEXT_SEARCH_STATES: Mapping[SearchState, frozenset[SearchState]] = {
    SearchState.RUNNING: frozenset({SearchState.COMPLETED, SearchState.STOPPED, SearchState.FAILED}),
    SearchState.STOPPED: frozenset({SearchState.RUNNING}),
    SearchState.FAILED: frozenset({SearchState.RUNNING}),
    SearchState.COMPLETED: frozenset(),
}


@dataclass(frozen=True)
class _Change:
    """An open transaction on a search whose lease has been checked."""

    session: Session
    search: SearchRow
    seconds: float
    """Of the database's clock"""

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def trial(self, number: int) -> TrialRow:
        """A trial that is about to change."""
        row = trial_row(self.session, self.search, number)
        row.revision = self.search.revision
        return row

    def end(self, row: TrialRow, attempt: int, state: TrialState) -> bool:
        """Move the running attempt to `state`. False where a call before this one did: then nothing is to be changed.

        Raises:
            StaleAttemptError, WrongStateError: the attempt is not the running one.
        """
        check_attempt(row, attempt)
        if row.state == state:
            return False
        check_state(row, TrialState.RUNNING)
        row.state = state
        return True


class SearchWriter:
    """Writes one search under `lease`. Every method raises LeaseLostError once the lease has passed to another process,
    and DatabaseUnavailableError while the database does not answer; it may then be called again."""

    def __init__(self, transactions: Transactions, lease: Lease) -> None:
        self._transactions = transactions
        self.lease = lease

    # The lease and the search

    def renew(self, seconds: float) -> bool:
        """Hold the lease for `seconds` from now on. Returns whether somebody has asked the search to stop.

        A lease that ran out is renewed as well, as long as nobody else has taken it; one that was given back is not.
        """
        with self._checked() as (_session, search, now):
            if search.lease_until is not None:
                search.lease_until = now + seconds
            return search.stop_requested

    def set_state(self, state: SearchState, error: str | None = None) -> Search:
        """Saying again what already holds is allowed. Raises WrongStateError for a change that is not."""
        with self._changing() as change:
            current = SearchState(change.search.state)
            if state is not current and state not in NEXT_SEARCH_STATES[current]:
                raise WrongStateError(f"search {change.search.name} is {current} and cannot become {state}")
            change.search.state, change.search.error = state, storable(error)
            change.search.updated_at = change.moment
            return to_search(change.search, change.seconds)

    def note_slots(self, wanted: int, allotted: int, note: str | None) -> None:
        """Keep how many slots of a shared cluster it could use, how many it may use, and why these are less."""
        with self._checked() as (_session, search, _now):
            search.slots_wanted, search.slots_allotted, search.slots_note = wanted, allotted, storable(note)

    def holds_lease(self) -> bool:
        """Whether no other process has taken it over. Raises DatabaseUnavailableError."""
        with self._transactions.reading() as session:
            return search_row(session, self.lease.search).lease_term == self.lease.term

    def release(self) -> None:
        """Give the lease back, so that nobody has to wait until it runs out."""
        with self._checked() as (_session, search, _now):
            search.lease_until = None

    # Trials

    def add_trials(
        self,
        first: int,
        design: Design,
        seeds: Sequence[int],
        origin: Origin,
        proposal_seconds: float,
        variant: str = "",
    ) -> tuple[Trial, ...]:
        """New QUEUED trials of one design, one for each training seed, numbered from `first`.

        Raises:
            WrongStateError: the search is not RUNNING, or one of the numbers is another trial's.
        """
        with self._changing() as change:
            if change.search.state != SearchState.RUNNING:
                raise WrongStateError(f"search {change.search.name} is {change.search.state} and takes no new trials")
            made_of = {
                "variant": variant,
                "architecture": str(design.architecture),
                "settings": dict(design.settings),
                "origin": origin,
                "proposal_seconds": finite("seconds", proposal_seconds),
            }
            rows = [self._add(change, first + place, seed, made_of) for place, seed in enumerate(seeds)]
            change.session.flush()
            return tuple(to_trial(row) for row in rows)

    def _add(self, change: _Change, number: int, seed: int, made_of: Mapping[str, object]) -> TrialRow:
        known = select(TrialRow).where(TrialRow.search_id == change.search.id, TrialRow.number == number)
        found = change.session.scalar(known)
        if found is not None:
            same = (made_of["variant"], made_of["architecture"], made_of["settings"], seed)
            if (found.variant, found.architecture, found.settings, found.seed) != same:
                raise WrongStateError(f"search {change.search.name} has another trial {number} already")
            return found
        row = TrialRow(
            search_id=change.search.id,
            number=number,
            seed=seed,
            state=TrialState.QUEUED,
            attempt=0,
            losses=0,
            metrics={},
            revision=change.search.revision,
            created_at=change.moment,
            **made_of,
        )
        change.session.add(row)
        return row

    def start_trial(self, number: int, attempt: int) -> Trial:
        """QUEUED -> RUNNING as attempt `attempt`, one above the last: it is about to be handed to a worker.

        Raises:
            StaleAttemptError, WrongStateError: the trial is not there.
        """
        with self._changing() as change:
            row = change.trial(number)
            if (row.state, row.attempt) != (TrialState.RUNNING, attempt):
                check_attempt(row, attempt - 1)
                check_state(row, TrialState.QUEUED)
                row.state, row.attempt, row.started_at = TrialState.RUNNING, attempt, change.moment
            return to_trial(row)

    def record_epoch(self, number: int, attempt: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep what an epoch (one-based) reported; the first report of an (attempt, epoch) stays, a repeat is ignored.

        Raises:
            StaleAttemptError, WrongStateError: the attempt is not the running one.
            ValueError: a metric is NaN or infinite, or the epoch is below one.
        """
        if epoch < 1:
            raise ValueError(f"epochs count from one, got {epoch}")
        values = {name: finite(name, value) for name, value in metrics.items()}
        with self._changing() as change:
            row = change.trial(number)
            check_attempt(row, attempt)
            known = select(ObservationRow.id).where(
                ObservationRow.trial_id == row.id, ObservationRow.attempt == attempt, ObservationRow.epoch == epoch
            )
            if change.session.scalar(known) is not None:
                return
            check_state(row, TrialState.RUNNING)
            change.session.add(
                ObservationRow(trial_id=row.id, attempt=attempt, epoch=epoch, metrics=values, recorded_at=change.moment)
            )

    def complete_trial(
        self,
        number: int,
        attempt: int,
        mrr: float,
        standard_error: float,
        metrics: Mapping[str, float] = MappingProxyType({}),
    ) -> Trial:
        """RUNNING -> COMPLETED. Raises StaleAttemptError, WrongStateError, or ValueError for NaN and infinity."""
        result, spread = finite("mrr", mrr), finite("standard_error", standard_error)
        values = {name: finite(name, value) for name, value in metrics.items()}
        with self._changing() as change:
            row = change.trial(number)
            if change.end(row, attempt, TrialState.COMPLETED):
                row.mrr, row.standard_error, row.metrics = result, spread, values
                row.error, row.finished_at = None, change.moment
            return to_trial(row)

    def fail_trial(self, number: int, attempt: int, error: str) -> Trial:
        """RUNNING -> FAILED, with the traceback. Raises StaleAttemptError or WrongStateError."""
        with self._changing() as change:
            row = change.trial(number)
            if change.end(row, attempt, TrialState.FAILED):
                row.error, row.finished_at = storable(error), change.moment
            return to_trial(row)

    def prune_trial(self, number: int, attempt: int, reason: str) -> Trial:
        """RUNNING -> PRUNED, with the reason: no result, whatever its epochs reported.

        Raises:
            StaleAttemptError, WrongStateError: the attempt is not the running one.
        """
        with self._changing() as change:
            row = change.trial(number)
            if change.end(row, attempt, TrialState.PRUNED):
                row.error, row.finished_at = storable(reason), change.moment
            return to_trial(row)

    def requeue_trial(self, number: int, attempt: int, *, lost: str | None = None) -> Trial:
        """RUNNING -> QUEUED: the attempt is over and has no result, the trial has to be run again.

        Args:
            lost: how its worker was lost; it then counts as a loss. None where the search itself ended the attempt.

        Raises:
            StaleAttemptError, WrongStateError: the attempt is not the running one.
        """
        with self._changing() as change:
            row = change.trial(number)
            if change.end(row, attempt, TrialState.QUEUED):
                row.losses += lost is not None
                row.error = storable(lost)
            return to_trial(row)

    # Transactions

    @contextmanager
    def _checked(self) -> Iterator[tuple[Session, SearchRow, float]]:
        with self._transactions.writing() as session:
            row = search_row(session, self.lease.search, lock=True)
            if row.lease_term != self.lease.term:
                raise LeaseLostError(
                    f"search {row.name!r} has been taken over by {row.lease_holder}: and this process writes no more"
                )
            yield session, row, seconds_now(session)

    @contextmanager
    def _changing(self) -> Iterator[_Change]:
        with self._checked() as (session, row, now):
            row.revision += 1
            yield _Change(session, row, now)
