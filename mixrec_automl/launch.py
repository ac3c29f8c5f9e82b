"""Runs a recorded search: everything that stands around the loop of `controller`, and its orderly end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.ray_session import check_resources, ray_session
from mixrec_automl.cluster.torch_trainer_executor import TorchTrainerExecutor
from mixrec_automl.cluster.training import Training
from mixrec_automl.controller import SearchParts, run_search
from mixrec_automl.interruption import stop_on_signals
from mixrec_automl.live import view_of
from mixrec_automl.progress import SearchProgress
from mixrec_automl.search.proposer import Proposer
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import Search
from mixrec_automl.store.repository import Repository
from mixrec_automl.tracking import Projector

TRACKING_SECONDS, TRACKING_SECONDS_WHEN_STOPPED = 30.0, 3.0
"""How long the end of a search waits for MLflow; `mixrec-automl ui` catches up with what is missing then."""


def launch(
    name: str,
    config: SearchConfig,
    training: Training,
    proposer: Proposer,
    repository: Repository,
    console: Console,
    *,
    record: Callable[[], object] = lambda: None,
) -> Search:
    """Run search `name` on Ray until its budget is spent, it fails, or Ctrl-C or SIGTERM stops it.

    Args:
        training: what each trial runs; importable by name.
        record: called once Ray has been found to have room; a new search is recorded by it.

    Returns:
        The search as recorded in the end.

    Raises:
        UserError: the machines have too little room, or `record` refuses.
        KeyboardInterrupt: a second signal came.
    """
    folder = paths.runs_folder() / name
    with ray_session(), stop_on_signals() as stop:
        check_resources(config.cluster)
        record()
        folder.mkdir(parents=True, exist_ok=True)
        known, seen = repository.trials(name), repository.observations(name)
        view = view_of(SearchProgress(name, config.search.trials, config.training.epochs, known, seen), console)
        projector = Projector(repository, name, paths.tracking_uri(), folder / "mlflow")
        projector.start()
        try:
            executor = TorchTrainerExecutor(training, config.cluster, folder / "ray")
            with closing(executor), view.showing():
                parts = SearchParts(repository, proposer, executor, view, projector.wake)
                return run_search(name, config.search, config.cluster.slots, folder, parts, stop)
        finally:
            seconds = TRACKING_SECONDS_WHEN_STOPPED if stop.is_set() else TRACKING_SECONDS
            if not projector.close(seconds):
                console.print("MLflow does not show all of it yet: mixrec-automl ui catches up", highlight=False)
