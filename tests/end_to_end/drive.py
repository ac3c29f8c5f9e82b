"""Runs or resumes a search with a small training, as a process of its own: `python -m tests.end_to_end.drive NAME`.

All is real but the training and the proposals: Ray, database, MLflow, view and signals.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from mixrec_automl.cli.search import run_and_close
from mixrec_automl.config import from_dict
from mixrec_automl.launch import launch
from mixrec_automl.store.records import Search
from mixrec_automl.store.repository import Repository
from tests.mixrec_automl.cluster.trainings import Counting
from tests.mixrec_automl.proposers import Enumerating


def main(name: str, trials: int, slots: int, epochs: int, seconds: float) -> None:
    repository, console = Repository.open(), Console()
    is_new = name not in {search.name for search in repository.searches()}
    config = from_dict(
        {
            "data": {"name": "none"},
            "training": {"epochs": epochs},
            "search": {"trials": trials},
            "cluster": {"slots": slots},
        },
        "test",
    )

    def run() -> Search:
        def record() -> None:
            if is_new:
                repository.create_search(name, config.as_dict(), "fingerprint")

        training = Counting(epochs, seconds)
        return launch(name, config, training, Enumerating(), repository, console, record=record)

    try:
        run_and_close(name, run, repository, console)
    except typer.Exit as end:
        sys.exit(end.exit_code)


if __name__ == "__main__":
    name, trials, slots, epochs, seconds = sys.argv[1:]
    main(name, int(trials), int(slots), int(epochs), float(seconds))
