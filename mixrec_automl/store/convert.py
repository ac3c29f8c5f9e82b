"""From rows to the frozen values of `records`."""

from __future__ import annotations

from typing import Any

from mixrec_automl.store.models import ObservationRow, PromotionRow, SearchRow, TrialRow
from mixrec_automl.store.records import (
    Observation,
    Origin,
    Promotion,
    Search,
    SearchState,
    Trial,
    TrialState,
    WarmStart,
)
from search_spaces.architecture import Architecture
from search_spaces.design import Design


def is_held(row: SearchRow, now: float) -> bool:
    """Whether the lease of a search has neither been released nor run out."""
    return row.lease_until is not None and row.lease_until > now


def to_search(row: SearchRow, now: float) -> Search:
    """`now` is as of `clock.database_seconds`: it decides whether the lease still holds."""
    has_controller = is_held(row, now)
    return Search(
        name=row.name,
        state=SearchState(row.state),
        config=row.config,
        fingerprint=row.fingerprint,
        floors=row.floors,
        created_at=row.created_at,
        updated_at=row.updated_at,
        error=row.error,
        revision=row.revision,
        tracked_revision=row.tracked_revision,
        tracking_error=row.tracking_error,
        controller=row.lease_holder if has_controller else None,
        is_to_stop=row.stop_requested,
        warm_start=None if row.warm_start is None else to_warm_start(row.warm_start),
        owner=row.owner,
        cluster=row.lease_cluster if has_controller else None,
        slots_wanted=row.slots_wanted if has_controller else None,
        slots_allotted=row.slots_allotted if has_controller else None,
        slots_note=row.slots_note if has_controller else None,
    )


def from_warm_start(taken: WarmStart) -> dict[str, Any]:
    outcomes = [[str(own.architecture), dict(own.settings), mrr] for own, mrr in taken.outcomes]
    return {"search": taken.search, "outcomes": outcomes}


def to_warm_start(stored: dict[str, Any]) -> WarmStart:
    outcomes = ((Design.of(Architecture.parse(bits), settings), mrr) for bits, settings, mrr in stored["outcomes"])
    return WarmStart(stored["search"], tuple(outcomes))


def to_trial(row: TrialRow) -> Trial:
    return Trial(
        number=row.number,
        variant=row.variant,
        design=Design.of(Architecture.parse(row.architecture), row.settings),
        seed=row.seed,
        origin=Origin(row.origin),
        state=TrialState(row.state),
        attempt=row.attempt,
        losses=row.losses,
        proposal_seconds=row.proposal_seconds,
        mrr=row.mrr,
        standard_error=row.standard_error,
        metrics=row.metrics,
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def to_observation(row: ObservationRow) -> Observation:
    return Observation(
        trial=row.trial.number,
        attempt=row.attempt,
        epoch=row.epoch,
        metrics=row.metrics,
        recorded_at=row.recorded_at,
    )


def to_promotion(row: PromotionRow) -> Promotion:
    return Promotion(
        number=row.number,
        search=row.search.name,
        trial=row.trial.number,
        state=SearchState(row.state),
        metrics=row.metrics,
        model_version=row.model_version,
        created_at=row.created_at,
        finished_at=row.finished_at,
        error=row.error,
    )
