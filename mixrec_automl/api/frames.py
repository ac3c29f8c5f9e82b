"""Trials and learning curves as tables of pandas, with the names that `show --json` uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from mixrec_automl.store.records import Observation, Trial, last_epochs

OF_TRIALS = {
    "state": "object",
    "origin": "object",
    "architecture": "object",
    "seed": "int64",
    "mrr": "float64",
    "standard_error": "float64",
    "epochs": "int64",
    "seconds": "float64",
    "proposal_seconds": "float64",
    "attempt": "int64",
    "losses": "int64",
    "started_at": "datetime64[ns, UTC]",
    "finished_at": "datetime64[ns, UTC]",
    "error": "object",
}
"""Columns that every search has, with their types, which an empty table has as well"""


def trials_frame(trials: Sequence[Trial], observations: Iterable[Observation]) -> pd.DataFrame:
    """[N trials] as `SearchResult.trials` says; what a trial lacks is NaN, NaT or None."""
    epochs = last_epochs(observations)
    rows = [
        {**_row(trial), "epochs": epochs.get(trial.number, 0), **trial.settings, **trial.metrics} for trial in trials
    ]
    settings, metrics = _keys(trial.settings for trial in trials), _keys(trial.metrics for trial in trials)
    place = list(OF_TRIALS).index("architecture") + 1  # settings and bits are the design
    columns = [*list(OF_TRIALS)[:place], *settings, *list(OF_TRIALS)[place:], *metrics]
    index = pd.Index([trial.number for trial in trials], dtype="int64", name="trial")
    return pd.DataFrame(rows, index=index, columns=columns).astype({**OF_TRIALS, **dict.fromkeys(metrics, "float64")})


def curves_frame(observations: Sequence[Observation]) -> pd.DataFrame:
    """[N epochs] as `SearchResult.curves` says; a metric that an epoch lacks is NaN."""
    metrics = _keys(seen.metrics for seen in observations)
    types = {**dict.fromkeys(("trial", "attempt", "epoch"), "int64"), **dict.fromkeys(metrics, "float64")}
    rows = [
        {"trial": seen.trial, "attempt": seen.attempt, "epoch": seen.epoch, **seen.metrics} for seen in observations
    ]
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _row(trial: Trial) -> dict[str, Any]:
    begin, end = trial.started_at, trial.finished_at
    return {
        "state": trial.state.value,
        "origin": trial.origin.value,
        "architecture": str(trial.architecture),
        "seed": trial.seed,
        "mrr": trial.mrr,
        "standard_error": trial.standard_error,
        "seconds": None if begin is None or end is None else (end - begin).total_seconds(),
        "proposal_seconds": trial.proposal_seconds,
        "attempt": trial.attempt,
        "losses": trial.losses,
        "started_at": begin,
        "finished_at": end,
        "error": trial.error,
    }


def _keys(mappings: Iterable[Iterable[str]]) -> list[str]:
    """All of them once, in the order in which they come."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
