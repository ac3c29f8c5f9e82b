"""Turns an error that the user can mend into one line and exit code 2, for every command below the root."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from mixrec_automl.store.errors import DatabaseUnavailableError
from trainers.errors import UserError
from trainers.secrecy import without_secrets

EXIT_USER_ERROR = 2


class FriendlyGroup(TyperGroup):
    """The root group: prints a `UserError`, or that the database is away, as one line; with `--debug` the error goes
    through, traceback and all."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, DatabaseUnavailableError) as error:
            if ctx.params.get("debug"):
                raise
            trouble = "the database does not answer: " if isinstance(error, DatabaseUnavailableError) else ""
            typer.echo(f"error: {trouble}{without_secrets(str(error))}", err=True)
            raise typer.Exit(EXIT_USER_ERROR) from error
