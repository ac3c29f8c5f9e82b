"""`mixrec-automl search` and `resume`: run a search in this process, or go on with one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


def search(config: Annotated[Path, CONFIG], overrides: Overrides = None, name: Name = None) -> None:
    """Search an architecture, here or on the Ray cluster that RAY_ADDRESS names. Ctrl-C stops it cleanly."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.config import load_config
    from mixrec_automl.start import name_of, start_search
    from mixrec_automl.store.repository import Repository

    loaded = load_config(config, overrides or [])
    chosen = name_of(name, config.stem)
    repository, console = Repository.open(), make_console()
    run_and_close(chosen, partial(start_search, loaded, chosen, repository, console), repository, console)


def resume(
    name: Annotated[str, typer.Argument(help="A search that was stopped or failed, or whose process died.")],
) -> None:
    """Go on with a search: trials that ran go on from their last epoch, and the rest of the budget follows."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.start import resume_search
    from mixrec_automl.store.repository import Repository

    repository, console = Repository.open(), make_console()
    run_and_close(name, partial(resume_search, name, repository, console), repository, console)


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
