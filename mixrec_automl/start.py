"""A search from its configuration to its end, or on from where it stood: what the command line and Python both call."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.config import from_dict
from mixrec_automl.holder import owner
from mixrec_automl.lease import acquire
from mixrec_automl.live import tell_of_holder
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.stopping import command_to_go_on
from mixrec_automl.store.records import Search, SearchState
from mixrec_automl.store.repository import Repository
from mixrec_automl.warm_start import warm_start_of
from trainers.errors import UserError


def name_of(name: str | None, stem: str) -> str:
    """`name`, or `stem` with date and time. Raises UserError where it cannot be a folder's."""
    return paths.valid_name(name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}", "search")


def start_search(config: SearchConfig, name: str, repository: Repository, console: Console) -> Search:
    """Run a new search until it ends, here or on the Ray cluster that RAY_ADDRESS names.

    Returns:
        The search as recorded in the end.

    Raises:
        UserError: there is one of this name, data or backbone cannot be had or do not fit, or as `launch`.
        KeyboardInterrupt: as `launch`, or a signal came before that.
    """
    if name in {known.name for known in repository.searches()}:  # said now, not after minutes of preparation
        raise UserError(f"a search named {name!r} exists: see `mixrec-automl show {name}`, or choose another --name")
    warm_start = warm_start_of(name, config.search, repository)
    console.print(f"search {name}", highlight=False)

    # torch, Ray and Ax: seconds that a mistake above need not cost
    from mixrec_automl.launch import launch
    from mixrec_automl.preparation import prepare
    from mixrec_automl.search.method import search_method

    prepared = prepare(config, console)
    proposer = search_method(prepared.space, config.search, warm_start, prepared.cost)

    def record() -> None:
        basis = prepared.basis
        repository.create_search(name, config.as_dict(), basis.fingerprint, basis.floors, warm_start, owner())

    return launch(name, config, prepared.training, proposer, repository, console, record=record)


def resume_search(name: str, repository: Repository, console: Console) -> Search:
    """Go on with a search that was stopped or failed, or whose process died. Returns and raises as `start_search`.

    Raises:
        UserError: it is complete or a study, a living process runs it, or its data or backbone are other ones now.
    """
    stored = repository.search(name)
    if "study" in stored.config:
        raise UserError(f"{name!r} is a study, not a search; to go on: {command_to_go_on(stored)}")
    if stored.state is SearchState.COMPLETED:
        raise UserError(f"search {name!r} is complete: see `mixrec-automl show {name}`")
    config = from_dict(stored.config, f"search {name}")
    # A controller that is alive is told of now, not after minutes of preparation, for which the lease is given back.
    acquire(repository, name, waiting=partial(tell_of_holder, console)).release()

    from mixrec_automl.launch import launch
    from mixrec_automl.preparation import prepare
    from mixrec_automl.search.method import search_method

    prepared = prepare(config, console)
    if prepared.basis.fingerprint != stored.fingerprint:
        raise UserError(
            f"search {name!r} began on other data or another backbone (fingerprint {stored.fingerprint}, "
            f"now {prepared.basis.fingerprint}), so its scores could not be compared: bring those back or start a "
            "new search"
        )
    proposer = search_method(prepared.space, config.search, stored.warm_start, prepared.cost)
    return launch(name, config, prepared.training, proposer, repository, console)
