"""Runs or resumes search "s" with a small training, as a process of its own: `python -m tests.end_to_end.drive PLAN`.

All is real but the training and the proposals: Ray, database, MLflow, view, lease and signals. PLAN is JSON: the
sections `search` and `cluster` of a configuration, and the fields of `Fragile` as `training`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import typer
from rich.console import Console

from mixrec_automl.cli.search import run_and_close
from mixrec_automl.config import from_dict
from mixrec_automl.launch import launch
from mixrec_automl.store.records import Search
from mixrec_automl.store.repository import Repository
from tests.end_to_end.fragile import Fragile
from tests.mixrec_automl.proposers import Enumerating

NAME = "s"


def main(plan: dict[str, Any]) -> None:
    repository, console = Repository.open(), Console()
    is_new = NAME not in {search.name for search in repository.searches()}
    ills = tuple((number, what) for number, what in plan["training"].pop("ills", ()))
    training = Fragile(**plan["training"], ills=ills)
    sections = {"search": plan["search"], "cluster": plan.get("cluster", {})}
    config = from_dict({"data": {"name": "none"}, "training": {"epochs": training.epochs}, **sections}, "test")

    def run() -> Search:
        def record() -> None:
            if is_new:
                repository.create_search(NAME, config.as_dict(), "fingerprint")

        return launch(NAME, config, training, Enumerating(bits=9), repository, console, record=record)

    try:
        run_and_close(NAME, run, repository, console)
    except typer.Exit as end:
        sys.exit(end.exit_code)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
