"""Stops a search from anywhere that reaches its database."""

from __future__ import annotations

import time

from mixrec_automl.lease import acquire
from mixrec_automl.store.records import Search, SearchState, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies.catalogue import BASELINE_STUDY
from trainers.errors import UserError

LOOK_SECONDS = 0.5


def stop_search(repository: Repository, name: str) -> Search:
    """Ask the controller of search `name` to stop, and wait until it has; do it in its place where it is dead.

    Returns:
        The search as it ended: STOPPED, or what it became in the meantime.

    Raises:
        UserError: there is no such search, or it does not run.
    """
    search = repository.search(name)
    if search.state is not SearchState.RUNNING:
        raise UserError(f"search {name!r} does not run: it is {search.state}")
    repository.request_stop(name)
    while (search := repository.search(name)).state is SearchState.RUNNING:
        if search.controller is None:
            return _stop_in_its_place(repository, name)
        if not search.is_to_stop:  # a controller that has begun since then knows nothing of it
            repository.request_stop(name)
        time.sleep(LOOK_SECONDS)
    return search


def command_to_go_on(search: Search) -> str:
    """What goes on with `search` where it has stopped, as people are told."""
    study = search.config.get("study")
    if study is None:
        return f"mixrec-automl resume {search.name}"
    kind = "study" if "variants" in study and study["name"] != BASELINE_STUDY else "baselines"
    return f"mixrec-automl {kind} run, with the same options"


def _stop_in_its_place(repository: Repository, name: str) -> Search:
    writer = acquire(repository, name)
    for trial in repository.trials(name):
        if trial.state is TrialState.RUNNING:
            writer.requeue_trial(trial.number, trial.attempt)
    search = repository.search(name)
    if search.state is SearchState.RUNNING:
        search = writer.set_state(SearchState.STOPPED)
    writer.release()
    return search
