"""`mixrec-automl stop NAME`: end a search that runs in another process, there or on another machine."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = "Example: mixrec-automl stop my-search"


def stop(name: Annotated[str, typer.Argument(help="A search that runs: see `mixrec-automl searches`.")]) -> None:
    """Stop a search cleanly, as Ctrl-C does in its terminal; works from wherever its database is reached.

    Trials that run end after their epoch or are queued again; `mixrec-automl resume` goes on with them.
    """
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.stopping import command_to_go_on, stop_search
    from mixrec_automl.store.records import SearchState
    from mixrec_automl.store.repository import Repository

    console = make_console()
    with console.status(f"stopping search {name}"):
        search = stop_search(Repository.open(), name)
    next_step = f"; to go on: {command_to_go_on(search)}" if search.state is SearchState.STOPPED else ""
    console.print(f"search {name} is {search.state}{next_step}", highlight=False, markup=False)
