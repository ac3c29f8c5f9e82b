"""`mixrec-automl search` and `resume`: run a search in this process, or go on with one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixrec_automl import paths
from mixrec_automl.cli.outcome import EXIT_INTERRUPTED, exit_unless_completed

if TYPE_CHECKING:
    from rich.console import Console

    from mixrec_automl.store.records import Search
    from mixrec_automl.store.repository import Repository

SEARCH_EXAMPLE = "Example: mixrec-automl search configs/ml-100k.yaml --name first --set search.trials=8"
RESUME_EXAMPLE = "Example: mixrec-automl resume first"


CONFIG = typer.Argument(help="YAML file of the search, or the name of a preset.")
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; may be given several times."),
]
Name = Annotated[str | None, typer.Option(help="Name of the search (default: that of the file, with date and time).")]


def name_of(config: Path, name: str | None) -> str:
    """`name`, or one after the file and the time. Raises UserError where it cannot be a folder's."""
    return paths.valid_name(name or f"{config.stem}-{datetime.now():%Y%m%d-%H%M%S}", "search")


def search(config: Annotated[Path, CONFIG], overrides: Overrides = None, name: Name = None) -> None:
    """Search an architecture, here or on the Ray cluster that RAY_ADDRESS names. Ctrl-C stops it cleanly."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.config import load_config
    from mixrec_automl.holder import owner
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.warm_start import warm_start_of
    from trainers.errors import UserError

    loaded = load_config(config, overrides or [])
    chosen = name_of(config, name)
    repository = Repository.open()
    if chosen in {known.name for known in repository.searches()}:  # said now, not after minutes of preparation
        raise UserError(
            f"a search named {chosen!r} exists: see `mixrec-automl show {chosen}`, or choose another --name"
        )
    warm_start = warm_start_of(chosen, loaded.search, repository)
    console = make_console()
    console.print(f"search {chosen}", highlight=False)

    def run() -> Search:
        # torch, Ray and Ax: seconds that a mistake above need not cost
        from mixrec_automl.launch import launch
        from mixrec_automl.preparation import prepare
        from mixrec_automl.search.method import search_method

        prepared = prepare(loaded, console)
        proposer = search_method(prepared.space, loaded.search, warm_start, prepared.cost)

        def record() -> None:
            basis = prepared.basis
            stored = loaded.as_dict()
            repository.create_search(chosen, stored, basis.fingerprint, basis.floors, warm_start, owner())

        return launch(chosen, loaded, prepared.training, proposer, repository, console, record=record)

    run_and_close(chosen, run, repository, console)


def resume(
    name: Annotated[str, typer.Argument(help="A search that was stopped or failed, or whose process died.")],
) -> None:
    """Go on with a search: trials that ran go on from their last epoch, and the rest of the budget follows."""
    from functools import partial

    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.config import from_dict
    from mixrec_automl.lease import acquire
    from mixrec_automl.live import tell_of_holder
    from mixrec_automl.store.records import SearchState
    from mixrec_automl.store.repository import Repository
    from trainers.errors import UserError

    repository = Repository.open()
    stored = repository.search(name)
    if "study" in stored.config:
        raise UserError(f"{name!r} is a study: `mixrec-automl study run` with the same options goes on with it")
    if stored.state is SearchState.COMPLETED:
        raise UserError(f"search {name!r} is complete: see `mixrec-automl show {name}`")
    config = from_dict(stored.config, f"search {name}")
    console = make_console()
    # A controller that is alive is told of now, not after minutes of preparation, for which the lease is given back.
    acquire(repository, name, waiting=partial(tell_of_holder, console)).release()

    def run() -> Search:
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

    run_and_close(name, run, repository, console)


def run_and_close(name: str, run: Callable[[], Search], repository: Repository, console: Console) -> None:
    """Run, then print what came of it; the exit code tells how it ended, not how well the designs did."""
    from mixrec_automl.cli.show import print_next_steps, print_search
    from mixrec_automl.store.records import last_epochs

    try:
        run()
    except KeyboardInterrupt:
        if name in {known.name for known in repository.searches()}:
            console.print(f"to go on: mixrec-automl resume {name}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    search, trials = repository.search(name), repository.trials(name)  # MLflow has caught up since it ended
    print_search(console, search, trials, last_epochs(repository.observations(name)))
    print_next_steps(console, search, trials)
    exit_unless_completed(search)
