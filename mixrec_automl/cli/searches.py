"""`mixrec-automl searches`: all searches in the database."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from mixrec_automl.cli.as_json import search_summary
from mixrec_automl.cli.tables import make_console, plain, score, state_text, when
from mixrec_automl.store.records import best_trial

EXAMPLE = "Example: mixrec-automl searches --json"


def searches(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """List all searches, newest first."""
    from mixrec_automl.store.repository import Repository

    repository = Repository.open()
    found = [(search, repository.trials(search.name)) for search in repository.searches()]
    if as_json:
        typer.echo(json.dumps([search_summary(search, trials) for search, trials in found], indent=2))
        return
    if not found:
        typer.echo("no searches yet: start one with `mixrec-automl search configs/ml-100k.yaml`")
        return
    table = Table(
        "name", "owner", "priority", "state", "data", "trials", "failed", "best MRR", "best design", "created"
    )
    for search, trials in found:
        best, summary = best_trial(trials), search_summary(search, trials)
        table.add_row(
            search.name,
            plain(search.owner or ""),
            str(search.priority),
            state_text(search.state),
            summary["data"],
            f"{summary['trials_ended']}/{summary['trials_planned'] or '?'}",
            str(summary["trials_failed"]),
            score(best.mrr if best else None),
            str(best.design) if best else "",
            when(search.created_at),
        )
    make_console().print(table)
