"""How far a search has come: a plain summary of its trials and epochs, which any view can draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.store.records import Observation, Trial, TrialState, best_trial, epochs_saved


@dataclass
class Row:
    """One trial."""

    trial: Trial
    epoch: int = 0
    """Last one that has ended, over all attempts"""
    mrr: float | None = None
    """Best validation MRR so far"""
    standard_error: float | None = None
    """Of `mrr` over users"""
    seconds: float = 0.0
    """Of its epochs"""


class SearchProgress:
    """All trials of a search so far, the best of them, and when it will end.

    Args:
        trials: budget.
        epochs: of each trial, but for those of the variants that `epochs_by_variant` names.
        known: trials recorded before, with the `observations` of their epochs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        trials: int,
        epochs: int,
        known: Iterable[Trial] = (),
        observations: Iterable[Observation] = (),
        clock: Callable[[], float] = time.monotonic,
        epochs_by_variant: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.name, self.trials = name, trials
        self._epochs, self._epochs_by_variant = epochs, epochs_by_variant
        self.rows: dict[int, Row] = {}
        self.last_proposal_seconds: float | None = None
        self.last_kernel = ""
        """Of the surrogate that was asked for the last proposal"""
        self._clock = clock
        for trial in known:
            self.trial_changed(trial)
        for seen in observations:
            self.epoch_ended(EpochEnded(seen.trial, seen.attempt, seen.epoch, seen.metrics))
        self._began, self._epochs_before = clock(), self.epochs_done

    def trial_changed(self, trial: Trial) -> Row:
        row = self.rows.setdefault(trial.number, Row(trial))
        row.trial = trial
        if trial.state is TrialState.COMPLETED:
            row.mrr, row.standard_error = trial.mrr, trial.standard_error
        if trial.attempt == 0:
            self.last_proposal_seconds = trial.proposal_seconds
        return row

    def epoch_ended(self, event: EpochEnded) -> Row:
        row = self.rows[event.number]
        row.epoch = max(row.epoch, event.epoch)
        row.seconds += event.metrics.get("seconds", 0.0)
        mrr = event.metrics.get("validation_mrr")
        if mrr is not None and row.trial.state is not TrialState.COMPLETED and (row.mrr is None or mrr > row.mrr):
            row.mrr, row.standard_error = mrr, event.metrics.get("validation_mrr_standard_error")
        return row

    @property
    def best(self) -> Row | None:
        """See `best_trial`."""
        best = best_trial(row.trial for row in self.rows.values())
        return None if best is None else self.rows[best.number]

    @property
    def trials_ended(self) -> int:
        return sum(row.trial.state.is_final for row in self.rows.values())

    @property
    def total_epochs(self) -> int:
        known = sum(self.epochs_of(row.trial) for row in self.rows.values())
        return known + max(0, self.trials - len(self.rows)) * self._epochs

    @property
    def epochs_done(self) -> int:
        """Out of `total_epochs`; a trial that has ended early has no epochs left to do."""
        return sum(self.epochs_of(row.trial) if row.trial.state.is_final else row.epoch for row in self.rows.values())

    @property
    def epochs_saved(self) -> int:
        """By pruning; a study, whose variants may have other numbers of epochs, does not prune."""
        return epochs_saved(
            (row.trial for row in self.rows.values()),
            {number: row.epoch for number, row in self.rows.items()},
            self._epochs,
        )

    def epochs_of(self, trial: Trial) -> int:
        """How many `trial` has, or at most has."""
        return self._epochs_by_variant.get(trial.variant, self._epochs)

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this run; None before its first epoch has ended."""
        done = self.epochs_done - self._epochs_before
        if done <= 0:
            return None
        return (self._clock() - self._began) / done * (self.total_epochs - self.epochs_done)

    def most_telling(self, most: int) -> list[Row]:
        """At most `most` rows in the order of their numbers: those that run, the best one, then the newest."""
        best = self.best

        def weight(row: Row) -> tuple[bool, bool, int]:
            is_best = best is not None and row.trial.number == best.trial.number
            return row.trial.state is TrialState.RUNNING, is_best, row.trial.number

        chosen = sorted(self.rows.values(), key=weight, reverse=True)[:most]
        return sorted(chosen, key=lambda row: row.trial.number)


def clock_time(seconds: float) -> str:
    """As 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
