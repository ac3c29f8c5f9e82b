"""What `--json` prints: plain dictionaries with stable keys, times in ISO 8601."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

from mixrec_automl.pareto import Efficient, pareto_front
from mixrec_automl.store.records import (
    Observation,
    Promotion,
    Search,
    Trial,
    TrialState,
    best_trial,
    decisive,
    epochs_saved,
    replicates_of,
    scores,
)


def search_summary(search: Search, trials: Sequence[Trial]) -> dict[str, Any]:
    """One entry of `searches --json`."""
    best = best_trial(trials)
    return {
        "name": search.name,
        "state": search.state,
        "owner": search.owner,
        "priority": search.priority,
        "data": search.config.get("data", {}).get("name"),
        "trials_planned": search.config.get("search", {}).get("trials"),
        "trials_ended": sum(trial.state.is_final for trial in trials),
        "trials_failed": sum(trial.state is TrialState.FAILED for trial in trials),
        "trials_pruned": sum(trial.state is TrialState.PRUNED for trial in trials),
        "best_trial": best.number if best else None,
        "best_mrr": best.mrr if best else None,
        "best_mean_mrr": fmean(scores(replicates_of(best, decisive(trials)))) if best else None,
        "best_architecture": str(best.architecture) if best else None,
        "best_settings": best.settings if best else None,
        "created_at": _time(search.created_at),
        "updated_at": _time(search.updated_at),
        "error": search.error,
        "controller": search.controller,
        "slots_wanted": search.slots_wanted,
        "slots_allotted": search.slots_allotted,
        "slots_note": search.slots_note,
    }


def whole_search(
    search: Search, trials: Sequence[Trial], promotions: Iterable[Promotion], epochs: dict[int, int]
) -> dict[str, Any]:
    """`show NAME --json`; `epochs` holds the last recorded epoch of each trial."""
    return {
        **search_summary(search, trials),
        "advantage": _advantage(trials),
        "pareto_front": [_efficient(one) for one in pareto_front(trials)],
        "epochs_saved": epochs_saved(trials, epochs, search.planned_epochs),
        "fingerprint": search.fingerprint,
        "floors": dict(search.floors),
        "tracking_error": search.tracking_error,
        "changes_not_tracked": search.changes_not_tracked,
        "config": dict(search.config),
        "trials": [one_trial(trial, epochs.get(trial.number, 0)) for trial in trials],
        "promotions": [_promotion(promotion) for promotion in promotions],
    }


def _advantage(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Of the winner over the fixed design, in MRR, once its confirmation has ended."""
    from mixrec_automl.search.advantage import LEVEL, advantage_of_winner

    found = advantage_of_winner(trials)
    if found is None:
        return None
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "level": LEVEL,
        "seeds": found.seeds,
        "compared": found.compared,
    }


def _efficient(one: Efficient) -> dict[str, Any]:
    return {
        "architecture": str(one.design.architecture),
        "settings": dict(one.design.settings),
        "trainable_parameters": one.trainable_parameters,
        "expected_mrr": one.expected_mrr,
        "mean_mrr": one.mean_mrr,
        "trials": list(one.trials),
        "best_trial": one.best_trial,
        "confirmed": one.is_confirmed,
    }


def one_trial(trial: Trial, epochs: int) -> dict[str, Any]:
    return {
        "number": trial.number,
        "variant": trial.variant,
        "architecture": str(trial.architecture),
        "settings": trial.settings,
        "seed": trial.seed,
        "origin": trial.origin,
        "state": trial.state,
        "attempt": trial.attempt,
        "losses": trial.losses,
        "epochs": epochs,
        "mrr": trial.mrr,
        "standard_error": trial.standard_error,
        "metrics": dict(trial.metrics),
        "proposal_seconds": trial.proposal_seconds,
        "created_at": _time(trial.created_at),
        "started_at": _time(trial.started_at),
        "finished_at": _time(trial.finished_at),
        "error": trial.error,
    }


def one_observation(seen: Observation) -> dict[str, Any]:
    return {
        "epoch": seen.epoch,
        "attempt": seen.attempt,
        "recorded_at": _time(seen.recorded_at),
        "metrics": dict(seen.metrics),
    }


def _promotion(promotion: Promotion) -> dict[str, Any]:
    return {
        "number": promotion.number,
        "trial": promotion.trial,
        "state": promotion.state,
        "metrics": dict(promotion.metrics),
        "model_version": promotion.model_version,
        "created_at": _time(promotion.created_at),
        "finished_at": _time(promotion.finished_at),
        "error": promotion.error,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
