"""`mixrec-automl doctor`: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

EXAMPLE = "Example: RAY_ADDRESS=head:6379 mixrec-automl doctor"
EXIT_BROKEN = 1
STYLES = {"ok": "green", "warning": "yellow", "broken": "red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False) -> None:
    """Check packages, home folder, database, MLflow, Ray, device and data, as the environment names them.

    It says what to do about each trouble, and exits with 1 where a search would fail.
    """
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.doctor import CHECKS, Level, examine

    console = make_console()
    found = []
    with console.status("looking"):
        for finding in examine():
            found.append(finding)
            if as_json:
                continue
            style = STYLES[finding.level]
            state = f"[{style}]{finding.level:<8}[/{style}]"
            console.print(f"{finding.what:<{max(map(len, CHECKS))}}  {state} {escape(finding.found)}", highlight=False)
            if finding.remedy:
                console.print(f"{'':<{max(map(len, CHECKS))}}  -> {escape(finding.remedy)}", highlight=False)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    if any(one.level is Level.BROKEN for one in found):
        raise typer.Exit(EXIT_BROKEN)
