"""What the service reads from the database, and what others than a search's controller write.

Short transactions in, frozen values out. The controller of a search is the only one that writes its trials: through a
`SearchWriter`, which a lease opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from mixrec_automl import paths
from mixrec_automl.store.clock import moment_now, seconds_now
from mixrec_automl.store.convert import from_warm_start, is_held, to_observation, to_promotion, to_search, to_trial
from mixrec_automl.store.engine import open_engine
from mixrec_automl.store.errors import LeaseHeldError, WrongStateError
from mixrec_automl.store.models import ObservationRow, PromotionRow, SearchRow, TrialRow
from mixrec_automl.store.records import (
    KILLED,
    Lease,
    Observation,
    Promotion,
    Search,
    SearchState,
    Trial,
    TrialState,
    WarmStart,
)
from mixrec_automl.store.rows import check_state, finite, search_row, storable, trial_row
from mixrec_automl.store.transactions import Transactions
from mixrec_automl.store.writer import SearchWriter
from trainers.errors import UserError


class Repository:
    """All reads and writes of one database; safe to share between threads."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    @classmethod
    def open(cls, url: str | None = None) -> Repository:
        """On `url`, else on `paths.database_url()`. Raises UserError as `open_engine`."""
        return cls(Transactions(open_engine(url or paths.database_url())))

    def close(self) -> None:
        self._transactions.close()

    @property
    def serves_one_machine(self) -> bool:
        """Whether the database is a file, which processes of other machines cannot share."""
        return self._transactions.is_sqlite

    # Searches

    def create_search(
        self,
        name: str,
        config: Mapping[str, Any],
        fingerprint: str,
        floors: Mapping[str, float] | None = None,
        warm_start: WarmStart | None = None,
        owner: str | None = None,
    ) -> Search:
        """A new RUNNING search. Raises UserError where the name is taken or cannot be a name."""
        paths.valid_name(name, "search")
        try:
            with self._transactions.writing() as session:
                now = moment_now(session)
                row = SearchRow(
                    name=name,
                    state=SearchState.RUNNING,
                    config=dict(config),
                    fingerprint=fingerprint,
                    floors={floor: finite(floor, value) for floor, value in (floors or {}).items()},
                    warm_start=warm_start and from_warm_start(warm_start),
                    created_at=now,
                    updated_at=now,
                    revision=0,
                    tracked_revision=-1,
                    stop_requested=False,
                    lease_term=0,
                    owner=storable(owner),
                )
                session.add(row)
                session.flush()
                return to_search(row, now.timestamp())
        except IntegrityError as error:
            raise UserError(
                f"a search named {name!r} exists: see `mixrec-automl show {name}`, or choose another --name"
            ) from error

    def search(self, name: str) -> Search:
        """Raises UserError, with the most similar name, where there is none of this name."""
        with self._transactions.reading() as session:
            return to_search(search_row(session, name), seconds_now(session))

    def searches(self) -> tuple[Search, ...]:
        """All, newest first."""
        with self._transactions.reading() as session:
            rows = session.scalars(select(SearchRow).order_by(SearchRow.created_at.desc(), SearchRow.id.desc()))
            now = seconds_now(session)
            return tuple(to_search(row, now) for row in rows)

    def searches_on(self, cluster: str) -> tuple[Search, ...]:
        """Those that a living controller runs on this Ray cluster, oldest first."""
        with self._transactions.reading() as session:
            now = seconds_now(session)
            query = select(SearchRow).where(SearchRow.lease_cluster == cluster, SearchRow.state == SearchState.RUNNING)
            rows = session.scalars(query.where(SearchRow.lease_until > now).order_by(SearchRow.id))
            return tuple(to_search(row, now) for row in rows)

    def note_tracking(self, name: str, error: str | None, revision: int | None = None) -> None:
        """Note up to which revision MLflow shows the search, and why it lags behind or (None) that it does not."""
        with self._transactions.writing() as session:
            row = search_row(session, name, lock=True)
            row.tracking_error = storable(error)
            row.tracked_revision = max(row.tracked_revision, -1 if revision is None else revision)

    # The lease

    def take_lease(
        self,
        search: str,
        holder: str,
        process: str,
        seconds: float,
        *,
        dead: str | None = None,
        cluster: str | None = None,
    ) -> SearchWriter:
        """Become the only writer of `search` for `seconds`; an earlier wish that it stop is forgotten.

        Args:
            holder: who takes it, in words for people.
            process: tells this process from all others.
            dead: `process` of a holder that is known to have died; its lease is not waited for.
            cluster: the Ray cluster that the search is run on, where other searches share it.

        Raises:
            LeaseHeldError: another process holds it.
        """
        with self._transactions.writing() as session:
            row = search_row(session, search, lock=True)
            now = seconds_now(session)
            if is_held(row, now) and row.lease_process not in (process, dead):
                raise LeaseHeldError(search, row.lease_holder or "", row.lease_process or "", row.lease_until or now)
            row.lease_term += 1
            row.lease_holder, row.lease_process, row.lease_until = holder, process, now + seconds
            row.lease_cluster, row.stop_requested = cluster, False
            row.slots_wanted = row.slots_allotted = row.slots_note = None
            return SearchWriter(self._transactions, Lease(search, row.lease_term))

    def request_stop(self, search: str) -> None:
        """Ask whoever runs `search` to stop it: its controller learns it when it next renews its lease."""
        with self._transactions.writing() as session:
            search_row(session, search, lock=True).stop_requested = True

    # Trials

    def trials(self, search: str, *, since: int = -1) -> tuple[Trial, ...]:
        """By number: all, or those that have changed after revision `since` of the search."""
        with self._transactions.reading() as session:
            query = select(TrialRow).where(TrialRow.search_id == search_row(session, search).id)
            rows = session.scalars(query.where(TrialRow.revision > since).order_by(TrialRow.number))
            return tuple(to_trial(row) for row in rows)

    def observations(self, search: str, trial: int | None = None) -> tuple[Observation, ...]:
        """Of all trials or of one, ordered by trial, attempt and epoch."""
        with self._transactions.reading() as session:
            parent = search_row(session, search)
            query = select(ObservationRow).join(ObservationRow.trial).where(TrialRow.search_id == parent.id)
            if trial is not None:
                query = query.where(TrialRow.number == trial)
            rows = session.scalars(query.order_by(TrialRow.number, ObservationRow.attempt, ObservationRow.epoch))
            return tuple(to_observation(row) for row in rows)

    # Promotions

    def add_promotion(self, search: str, trial: int) -> Promotion:
        """A new RUNNING promotion of a COMPLETED trial. Raises UserError (no such trial) or WrongStateError."""
        with self._transactions.writing() as session:
            parent = search_row(session, search, lock=True)
            winner = trial_row(session, parent, trial)
            check_state(winner, TrialState.COMPLETED)
            last = session.scalar(select(func.max(PromotionRow.number)).where(PromotionRow.search_id == parent.id))
            row = PromotionRow(
                search=parent,
                trial=winner,
                number=0 if last is None else last + 1,
                state=SearchState.RUNNING,
                metrics={},
                created_at=moment_now(session),
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
        """RUNNING, or FAILED as `KILLED` -> COMPLETED, STOPPED or FAILED; the same again changes nothing.

        Raises WrongStateError, or ValueError for NaN and infinity.
        """
        values = {name: finite(name, value) for name, value in (metrics or {}).items()}
        with self._transactions.writing() as session:
            parent = search_row(session, search, lock=True)
            row = session.scalar(
                select(PromotionRow).where(PromotionRow.search_id == parent.id, PromotionRow.number == number)
            )
            if row is None:
                raise UserError(f"search {search} has no promotion {number}: see `mixrec-automl show {search}`")
            if row.state == state and row.metrics == values and row.model_version == model_version:
                return to_promotion(row)
            is_open = row.state == SearchState.RUNNING or row.error == KILLED  # whoever reports was not killed
            if not is_open or state is SearchState.RUNNING:
                raise WrongStateError(f"promotion {number} of search {search} is {row.state} and cannot become {state}")
            row.state, row.metrics, row.model_version = state, values, model_version
            row.error, row.finished_at = storable(error), moment_now(session)
            return to_promotion(row)

    def promotions(self, search: str) -> tuple[Promotion, ...]:
        """All, by number."""
        with self._transactions.reading() as session:
            parent = search_row(session, search)
            query = select(PromotionRow).where(PromotionRow.search_id == parent.id).order_by(PromotionRow.number)
            return tuple(to_promotion(row) for row in session.scalars(query))
