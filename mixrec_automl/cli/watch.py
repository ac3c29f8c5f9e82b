"""`mixrec-automl watch NAME`: the live view of a search that another process runs, on whichever machine."""

from __future__ import annotations

from typing import Annotated

import typer

from mixrec_automl.cli.outcome import EXIT_INTERRUPTED, exit_unless_completed

EXAMPLE = "Example: mixrec-automl watch my-search"


def watch(name: Annotated[str, typer.Argument(help="Name of a search: see `mixrec-automl searches`.")]) -> None:
    """Follow a search until it ends, from wherever its database is reached; Ctrl-C ends the watching alone.

    The exit code tells how the search ended: 0 completed, 1 failed, 130 stopped, which is also that of Ctrl-C.
    """
    from mixrec_automl.cli.show import print_search
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.store.records import last_epochs
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.watching import watch_search
    from trainers.errors import UserError

    repository, console = Repository.open(), make_console()
    search = repository.search(name)
    if "study" in search.config:
        raise UserError(f"{name!r} is a study: `mixrec-automl show {name}` tells how far it is")
    try:
        search = watch_search(repository, search, console)
    except KeyboardInterrupt:
        typer.echo(f"search {name} goes on; `mixrec-automl stop {name}` stops it", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_search(console, search, repository.trials(name), last_epochs(repository.observations(name)))
    exit_unless_completed(search)
