"""How a command that can be gone on with ends where it does not complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mixrec_automl.store.records import Search

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What shells report of a program that Ctrl-C ended."""
AGAIN = "the same command goes on with it"


@contextmanager
def told_if_interrupted(console: Console) -> Iterator[None]:
    """Raises typer.Exit for KeyboardInterrupt, and says what to do."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(AGAIN, highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def exit_unless_completed(ended: Search) -> None:
    """Raises typer.Exit for one that did not complete."""
    from mixrec_automl.store.records import SearchState

    if ended.state is not SearchState.COMPLETED:
        raise typer.Exit(EXIT_INTERRUPTED if ended.state is SearchState.STOPPED else EXIT_FAILED)


def require_completed(ended: Search, console: Console) -> None:
    """Raises typer.Exit for one that did not complete, and says what to do."""
    from mixrec_automl.store.records import SearchState

    if ended.state is SearchState.COMPLETED:
        return
    if ended.error:
        console.print(f"error: {ended.error}", highlight=False, markup=False, style="red")
    console.print(f"{ended.name} is {ended.state}: {AGAIN}", highlight=False)
    exit_unless_completed(ended)
