"""Follows a search that another process runs, on whichever machine: all that is told is read from the database."""

from __future__ import annotations

import time
from dataclasses import replace

from rich.console import Console

from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.interruption import StopRequest
from mixrec_automl.live import view_of
from mixrec_automl.patience import Patience
from mixrec_automl.progress import SearchProgress
from mixrec_automl.search_listener import SearchListener
from mixrec_automl.store.records import Observation, Search, SearchState, Trial, TrialState
from mixrec_automl.store.repository import Repository

LOOK_SECONDS = 1.0


def watch_search(repository: Repository, search: Search, console: Console) -> Search:
    """Show `search`, as its own process does, until it has ended; a database that goes away is waited for.

    Returns:
        The search as it ended.

    Raises:
        KeyboardInterrupt: Ctrl-C; the search takes no notice.
    """
    # In this order every epoch has its trial; what is recorded meanwhile is told at the first look.
    seen = repository.observations(search.name)
    trials = repository.trials(search.name)
    planned = search.config.get("search", {}).get("trials", 0)
    view = view_of(SearchProgress(search.name, planned, search.planned_epochs, trials, seen), console)
    watcher = _Watcher(repository, search, trials, seen, view)
    patiently = Patience(StopRequest(), view.notice)
    with view.showing():
        while (search := patiently(watcher.look)).state is SearchState.RUNNING:
            time.sleep(LOOK_SECONDS)
    return search


class _Watcher:
    """Tells a listener what has changed since the last look. One that failed is made again and tells nothing twice."""

    def __init__(
        self,
        repository: Repository,
        search: Search,
        trials: tuple[Trial, ...],
        observations: tuple[Observation, ...],
        listener: SearchListener,
    ) -> None:
        self._repository, self._name, self._listener = repository, search.name, listener
        self._revision = search.revision
        self._told = {trial.number: trial for trial in trials}
        self._epochs = {(one.trial, one.attempt, one.epoch) for one in observations}

    def look(self) -> Search:
        search = self._repository.search(self._name)
        for trial in self._repository.trials(self._name, since=self._revision):
            self._tell_trial(trial)
        self._revision = search.revision
        if search.state is SearchState.RUNNING:  # else all that was the matter has ended with it
            if search.controller is not None:
                self._listener.sharing(search.slots_note)
            self._listener.notice(_trouble(search))
        return search

    def _tell_trial(self, trial: Trial) -> None:
        """All that has happened to it, in its order: several steps may lie between two looks."""
        if trial.number not in self._told:
            self._tell(replace(trial, state=TrialState.QUEUED, attempt=0, error=None))
        if trial.attempt > self._told[trial.number].attempt:
            self._tell(replace(trial, state=TrialState.RUNNING))
        for one in self._repository.observations(self._name, trial.number):
            if (key := (one.trial, one.attempt, one.epoch)) not in self._epochs:
                self._epochs.add(key)
                self._listener.epoch_ended(EpochEnded(one.trial, one.attempt, one.epoch, one.metrics))
        if trial.state is not self._told[trial.number].state:
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        self._told[trial.number] = trial
        self._listener.trial_changed(trial)


def _trouble(search: Search) -> str | None:
    """Of one that is RUNNING."""
    if search.controller is None:
        return f"no process runs it any more: `mixrec-automl resume {search.name}` goes on with it"
    return "it has been asked to stop" if search.is_to_stop else None
