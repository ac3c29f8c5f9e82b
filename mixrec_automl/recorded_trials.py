"""The trials of a search in memory, always equal to those in the database: each change is written first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mixrec_automl.cluster.executor import EpochEnded, TrialCompleted
from mixrec_automl.patience import Patience
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search.pruning import METRIC, Curve, curves_of
from mixrec_automl.store.records import Observation, Trial, TrialState, last_epochs
from mixrec_automl.store.writer import SearchWriter


class RecordedTrials:
    """A copy that saves the loop from reading what it wrote itself, and from waiting where the database is away.

    Every change raises as the method of `SearchWriter` that makes it, after the patience of `patiently`.

    Args:
        trials: recorded before, read under the lease of `writer`.
        observations: the epochs that are recorded of them.
        changed: told of each trial that is new or in another state.
    """

    def __init__(
        self,
        writer: SearchWriter,
        trials: Sequence[Trial],
        observations: Sequence[Observation],
        patiently: Patience,
        changed: Callable[[Trial], None],
    ) -> None:
        self._writer, self._patiently, self._changed = writer, patiently, changed
        self._epochs = last_epochs(observations)
        self._curves = curves_of(observations)
        self._trials = {trial.number: trial for trial in sorted(trials, key=lambda trial: trial.number)}

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def all(self) -> tuple[Trial, ...]:
        """By number: the order in which they came."""
        return tuple(self._trials.values())

    def in_state(self, state: TrialState) -> list[Trial]:
        """By number."""
        return [trial for trial in self._trials.values() if trial.state is state]

    def is_running(self, number: int, attempt: int) -> bool:
        trial = self._trials.get(number)
        return trial is not None and trial.state is TrialState.RUNNING and trial.attempt == attempt

    def epochs_of(self, number: int) -> int:
        """Up to which epoch, from 1, all are recorded."""
        return self._epochs.get(number, 0)

    @property
    def curves(self) -> Mapping[int, Curve]:
        """By number; of each trial of which an epoch with a validation MRR is recorded."""
        return self._curves

    def add(self, proposal: Proposal, seeds: Sequence[int]) -> None:
        """A trial for each training seed."""
        add = partial(self._writer.add_trials, len(self), proposal.design, seeds)
        for trial in self._patiently(partial(add, proposal.origin, proposal.seconds, proposal.variant)):
            self._keep(trial)

    def start(self, number: int) -> Trial:
        return self._keep(self._patiently(partial(self._writer.start_trial, number, self._trials[number].attempt + 1)))

    def record_epoch(self, event: EpochEnded) -> None:
        self._patiently(partial(self._writer.record_epoch, event.number, event.attempt, event.epoch, event.metrics))
        self._epochs[event.number] = max(self.epochs_of(event.number), event.epoch)
        if METRIC in event.metrics:
            self._curves.setdefault(event.number, {})[event.epoch] = event.metrics[METRIC]

    def complete(self, event: TrialCompleted) -> None:
        write = partial(self._writer.complete_trial, event.number, event.attempt)
        self._keep(self._patiently(partial(write, event.mrr, event.standard_error, event.metrics)))

    def fail(self, number: int, error: str) -> None:
        self._keep(self._patiently(partial(self._writer.fail_trial, number, self._trials[number].attempt, error)))

    def prune(self, number: int, reason: str) -> None:
        self._keep(self._patiently(partial(self._writer.prune_trial, number, self._trials[number].attempt, reason)))

    def requeue(self, number: int, lost: str | None = None) -> None:
        write = partial(self._writer.requeue_trial, number, self._trials[number].attempt, lost=lost)
        self._keep(self._patiently(write))

    def requeue_running(self) -> None:
        for trial in self.in_state(TrialState.RUNNING):
            self.requeue(trial.number)

    def _keep(self, trial: Trial) -> Trial:
        self._trials[trial.number] = trial
        self._changed(trial)
        return trial
