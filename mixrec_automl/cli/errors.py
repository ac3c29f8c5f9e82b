"""Turns an error that the user can mend into one line and exit code 2, for every command below the root."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from trainers.errors import UserError

EXIT_USER_ERROR = 2


class FriendlyGroup(TyperGroup):
    """The root group: prints a `UserError` as one line; with `--debug` it goes through, traceback and all."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(EXIT_USER_ERROR) from error
