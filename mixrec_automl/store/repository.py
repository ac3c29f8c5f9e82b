"""What the service writes to and reads from the database: short transactions in, frozen values out.

The controller of a search is its only writer. Every state change names the state it starts from, and every result
names the attempt it belongs to, so that a late message of an abandoned attempt changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mixrec_automl import paths
from mixrec_automl.store.convert import to_observation, to_promotion, to_search, to_trial
from mixrec_automl.store.engine import READ_ONLY, open_engine
from mixrec_automl.store.errors import WrongStateError
from mixrec_automl.store.models import ObservationRow, PromotionRow, SearchRow, TrialRow
from mixrec_automl.store.records import Observation, Origin, Promotion, Search, SearchState, Trial, TrialState
from mixrec_automl.store.rows import check_attempt, check_state, search_row, trial_row
from search_spaces.architecture import Architecture
from trainers.errors import UserError

NEXT_SEARCH_STATES: Mapping[SearchState, frozenset[SearchState]] = {
    SearchState.RUNNING: frozenset({SearchState.COMPLETED, SearchState.STOPPED, SearchState.FAILED}),
    SearchState.STOPPED: frozenset({SearchState.RUNNING}),
    SearchState.FAILED: frozenset({SearchState.RUNNING}),
    SearchState.COMPLETED: frozenset(),
}


class Repository:
    """All reads and writes of one database; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**{READ_ONLY: True})

    @classmethod
    def open(cls, url: str | None = None) -> Repository:
        """On `url`, else on `paths.database_url()`. Raises UserError as `open_engine`."""
        return cls(open_engine(url or paths.database_url()))

    def close(self) -> None:
        self._engine.dispose()

    # Searches

    def create_search(
        self, name: str, config: Mapping[str, Any], fingerprint: str, floors: Mapping[str, float] | None = None
    ) -> Search:
        """A new RUNNING search. Raises UserError where the name is taken or cannot be a name."""
        paths.valid_name(name, "search")
        now = _now()
        row = SearchRow(
            name=name,
            state=SearchState.RUNNING,
            config=dict(config),
            fingerprint=fingerprint,
            floors={floor: _finite(floor, value) for floor, value in (floors or {}).items()},
            created_at=now,
            updated_at=now,
        )
        try:
            with self._writing() as session:
                session.add(row)
                session.flush()
                return to_search(row)
        except IntegrityError as error:
            raise UserError(
                f"a search named {name!r} exists: see `mixrec-automl show {name}`, or choose another --name"
            ) from error

    def search(self, name: str) -> Search:
        """Raises UserError, with the most similar name, where there is none of this name."""
        with self._reading() as session:
            return to_search(search_row(session, name))

    def searches(self) -> tuple[Search, ...]:
        """All, newest first."""
        with self._reading() as session:
            rows = session.scalars(select(SearchRow).order_by(SearchRow.created_at.desc(), SearchRow.id.desc()))
            return tuple(to_search(row) for row in rows)

    def set_search_state(self, name: str, state: SearchState, error: str | None = None) -> Search:
        """Saying again what already holds is allowed. Raises WrongStateError for a change that is not."""
        with self._writing() as session:
            row = search_row(session, name, lock=True)
            current = SearchState(row.state)
            if state is not current and state not in NEXT_SEARCH_STATES[current]:
                raise WrongStateError(f"search {name} is {current} and cannot become {state}")
            row.state, row.error, row.updated_at = state, _storable(error), _now()
            return to_search(row)

    def set_tracking_error(self, name: str, error: str | None) -> None:
        """Note why MLflow lags behind this search, or that it no longer does."""
        with self._writing() as session:
            search_row(session, name, lock=True).tracking_error = _storable(error)

    # Trials

    def add_trial(
        self, search: str, architecture: Architecture, seed: int, origin: Origin, proposal_seconds: float
    ) -> Trial:
        """A new QUEUED trial with the next free number. Raises WrongStateError where the search is not RUNNING."""
        with self._writing() as session:
            parent = search_row(session, search, lock=True)
            if parent.state != SearchState.RUNNING:
                raise WrongStateError(f"search {search} is {parent.state} and takes no new trials")
            last = session.scalar(select(func.max(TrialRow.number)).where(TrialRow.search_id == parent.id))
            row = TrialRow(
                search_id=parent.id,
                number=0 if last is None else last + 1,
                architecture=str(architecture),
                seed=seed,
                origin=origin,
                state=TrialState.QUEUED,
                attempt=0,
                proposal_seconds=_finite("proposal_seconds", proposal_seconds),
                created_at=_now(),
            )
            session.add(row)
            session.flush()
            return to_trial(row)

    def start_trial(self, search: str, number: int) -> Trial:
        """QUEUED -> RUNNING, one attempt up: the trial is about to be handed to a worker. Raises WrongStateError."""
        with self._changing(search, number, TrialState.QUEUED) as row:
            row.state, row.attempt, row.started_at = TrialState.RUNNING, row.attempt + 1, _now()
        return to_trial(row)

    def record_epoch(self, search: str, number: int, attempt: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep what an epoch (one-based) reported; the first report of an (attempt, epoch) stays, a repeat is ignored.

        Raises:
            StaleAttemptError, WrongStateError: the attempt is not the running one.
            ValueError: a metric is NaN or infinite, or the epoch is below one.
        """
        if epoch < 1:
            raise ValueError(f"epochs count from one, got {epoch}")
        values = {name: _finite(name, value) for name, value in metrics.items()}
        with self._writing() as session:
            row = trial_row(session, search, number, lock=True)
            check_attempt(row, attempt)
            known = select(ObservationRow.id).where(
                ObservationRow.trial_id == row.id, ObservationRow.attempt == attempt, ObservationRow.epoch == epoch
            )
            if session.scalar(known) is not None:
                return
            check_state(row, TrialState.RUNNING)
            session.add(
                ObservationRow(trial_id=row.id, attempt=attempt, epoch=epoch, metrics=values, recorded_at=_now())
            )

    def complete_trial(self, search: str, number: int, attempt: int, mrr: float, standard_error: float) -> Trial:
        """RUNNING -> COMPLETED. Raises StaleAttemptError, WrongStateError, or ValueError for NaN and infinity."""
        result, spread = _finite("mrr", mrr), _finite("standard_error", standard_error)
        with self._changing(search, number, TrialState.RUNNING, attempt) as row:
            row.state, row.mrr, row.standard_error = TrialState.COMPLETED, result, spread
            row.finished_at = _now()
        return to_trial(row)

    def fail_trial(self, search: str, number: int, attempt: int, error: str) -> Trial:
        """RUNNING -> FAILED, with the traceback. Raises StaleAttemptError or WrongStateError."""
        with self._changing(search, number, TrialState.RUNNING, attempt) as row:
            row.state, row.error, row.finished_at = TrialState.FAILED, _storable(error), _now()
        return to_trial(row)

    def requeue_trial(self, search: str, number: int) -> Trial:
        """RUNNING -> QUEUED: its worker or controller is gone, it has to be run again. Raises WrongStateError."""
        with self._changing(search, number, TrialState.RUNNING) as row:
            row.state = TrialState.QUEUED
        return to_trial(row)

    def trials(self, search: str) -> tuple[Trial, ...]:
        """All, by number."""
        with self._reading() as session:
            parent = search_row(session, search)
            rows = session.scalars(select(TrialRow).where(TrialRow.search_id == parent.id).order_by(TrialRow.number))
            return tuple(to_trial(row) for row in rows)

    def observations(self, search: str, trial: int | None = None) -> tuple[Observation, ...]:
        """Of all trials or of one, ordered by trial, attempt and epoch."""
        with self._reading() as session:
            parent = search_row(session, search)
            query = select(ObservationRow).join(ObservationRow.trial).where(TrialRow.search_id == parent.id)
            if trial is not None:
                query = query.where(TrialRow.number == trial)
            rows = session.scalars(query.order_by(TrialRow.number, ObservationRow.attempt, ObservationRow.epoch))
            return tuple(to_observation(row) for row in rows)

    # Promotions

    def add_promotion(self, search: str, trial: int) -> Promotion:
        """A new RUNNING promotion of a COMPLETED trial. Raises UserError (no such trial) or WrongStateError."""
        with self._writing() as session:
            parent = search_row(session, search, lock=True)
            winner = trial_row(session, search, trial)
            check_state(winner, TrialState.COMPLETED)
            last = session.scalar(select(func.max(PromotionRow.number)).where(PromotionRow.search_id == parent.id))
            row = PromotionRow(
                search=parent,
                trial=winner,
                number=0 if last is None else last + 1,
                state=SearchState.RUNNING,
                metrics={},
                created_at=_now(),
            )
            session.add(row)
            session.flush()
            return to_promotion(row)

    def finish_promotion(
        self,
        search: str,
        number: int,
        state: SearchState,
        *,
        metrics: Mapping[str, float] | None = None,
        model_version: str | None = None,
        error: str | None = None,
    ) -> Promotion:
        """RUNNING -> COMPLETED, STOPPED or FAILED. Raises WrongStateError, or ValueError for NaN and infinity."""
        values = {name: _finite(name, value) for name, value in (metrics or {}).items()}
        with self._writing() as session:
            parent = search_row(session, search, lock=True)
            row = session.scalar(
                select(PromotionRow).where(PromotionRow.search_id == parent.id, PromotionRow.number == number)
            )
            if row is None:
                raise UserError(f"search {search} has no promotion {number}: see `mixrec-automl show {search}`")
            if row.state != SearchState.RUNNING or state is SearchState.RUNNING:
                raise WrongStateError(f"promotion {number} of search {search} is {row.state} and cannot become {state}")
            row.state, row.metrics, row.model_version = state, values, model_version
            row.error, row.finished_at = _storable(error), _now()
            return to_promotion(row)

    def promotions(self, search: str) -> tuple[Promotion, ...]:
        """All, by number."""
        with self._reading() as session:
            parent = search_row(session, search)
            query = select(PromotionRow).where(PromotionRow.search_id == parent.id).order_by(PromotionRow.number)
            return tuple(to_promotion(row) for row in session.scalars(query))

    # Transactions

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _changing(self, search: str, number: int, state: TrialState, attempt: int | None = None) -> Iterator[TrialRow]:
        """The row of a trial that is in `state` (and at `attempt`), locked until the change is written."""
        with self._writing() as session:
            row = trial_row(session, search, number, lock=True)
            if attempt is not None:
                check_attempt(row, attempt)
            check_state(row, state)
            yield row


def _now() -> datetime:
    return datetime.now(UTC)


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which cannot be recorded")
    return float(value)


def _storable(text: str | None) -> str | None:
    """A traceback may quote any text; databases refuse zero characters and halves of surrogate pairs."""
    return text and text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
