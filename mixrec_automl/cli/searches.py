"""`mixrec-automl searches`: all searches in the database."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mixrec_automl.cli.as_json import search_summary
from mixrec_automl.cli.tables import fitting, make_console, plain, score, state_text, when
from mixrec_automl.store.records import Search, SearchState, Trial, best_trial

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
    console = make_console()
    console.print(fitting(console, partial(_table, found), ("owner", "priority", "failed", "best design", "created")))


def _table(found: Sequence[tuple[Search, Sequence[Trial]]], left_out: Collection[str]) -> Table:
    rows = [_row(search, trials) for search, trials in found]
    shown = [name for name in rows[0] if name not in left_out]
    table = Table(*shown)
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _row(search: Search, trials: Sequence[Trial]) -> dict[str, Text | str]:
    best, summary = best_trial(trials), search_summary(search, trials)
    is_abandoned = search.state is SearchState.RUNNING and search.controller is None
    return {
        "name": search.name,
        "owner": plain(search.owner or ""),
        "priority": str(search.priority),
        "state": Text("interrupted", style="yellow") if is_abandoned else state_text(search.state),
        "data": summary["data"],
        "trials": f"{summary['trials_ended']}/{summary['trials_planned'] or '?'}",
        "failed": str(summary["trials_failed"]),
        "best MRR": score(best.mrr if best else None),
        "best design": str(best.design) if best else "",
        "created": when(search.created_at),
    }
