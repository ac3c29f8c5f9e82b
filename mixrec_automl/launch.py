"""Runs a recorded search: everything that stands around the loop of `controller`, and its orderly end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.ray_session import check_one_machine, check_resources, cluster_name, ray_session
from mixrec_automl.cluster.slot_executor import SlotExecutor
from mixrec_automl.cluster.training import Training
from mixrec_automl.cluster_share import ClusterShare, slots_per_user
from mixrec_automl.controller import SearchParts, run_search
from mixrec_automl.interruption import stop_on_signals
from mixrec_automl.lease import acquire, heartbeat
from mixrec_automl.live import tell_of_holder, view_of
from mixrec_automl.progress import SearchProgress
from mixrec_automl.search.proposer import Proposer
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.errors import DatabaseUnavailableError, LeaseLostError
from mixrec_automl.store.records import Search
from mixrec_automl.store.repository import Repository
from mixrec_automl.tracking import Projector
from trainers.errors import UserError

TRACKING_SECONDS, TRACKING_SECONDS_IN_A_HURRY = 30.0, 3.0
"""How long the end of a search waits for MLflow, the shorter time where it was stopped or where MLflow does not answer;
`mixrec-automl ui` catches up with what is missing then."""


def launch(
    name: str,
    config: SearchConfig,
    training: Training,
    proposer: Proposer,
    repository: Repository,
    console: Console,
    *,
    record: Callable[[], object] = lambda: None,
    epochs_by_variant: Mapping[str, int] = MappingProxyType({}),
) -> Search:
    """Run search `name` on Ray until its budget is spent, it fails, or Ctrl-C, SIGTERM or `stop` stops it.

    Args:
        training: what each trial runs; importable by name.
        record: called once Ray has been found to have room; a new search is recorded by it.
        epochs_by_variant: of a study: where they are not `config.training.epochs`.

    Returns:
        The search as recorded in the end.

    Raises:
        UserError: the machines have too little room or cannot be served by the database, checkpoints cannot be
            written, `record` refuses, another process runs the search or takes it
            over, or the database is away when the search is to end.
        KeyboardInterrupt: a second signal came.
    """
    folder, quota = paths.runs_folder() / name, slots_per_user()
    with ray_session() as scratch, stop_on_signals() as stop:
        cluster = cluster_name() if scratch is None else None
        # On a cluster that is shared `slots` is the most that it may use: one is enough to begin.
        check_resources(config.cluster if cluster is None else replace(config.cluster, slots=1))
        if repository.serves_one_machine:
            check_one_machine("SQLite serves one machine alone: name a PostgreSQL database in MIXREC_DATABASE_URL")
        _check_writable(folder)
        record()
        writer = acquire(repository, name, cluster=cluster, waiting=partial(tell_of_holder, console))
        known, seen = repository.trials(name), repository.observations(name)
        budget, epochs = config.search.trials, config.training.epochs
        progress = SearchProgress(name, budget, epochs, known, seen, epochs_by_variant=epochs_by_variant)
        view = view_of(progress, console)
        projector = Projector(repository, name, paths.tracking_uri(), folder / "mlflow", writer.holds_lease)
        share = None
        if cluster is not None:
            share = ClusterShare(writer, config.cluster.slots, partial(repository.searches_on, cluster), quota)
        book = (scratch or folder) / "train"
        make_executor = partial(SlotExecutor, training, config.cluster, book, is_shared=share is not None)
        parts = SearchParts(writer, known, seen, epochs, proposer, make_executor, view, projector.wake, share)
        projector.start()
        try:
            with heartbeat(writer, stop), view.showing():
                return run_search(config.search, config.cluster.slots, folder, parts, stop)
        except LeaseLostError as error:
            raise UserError(f"{error}; nothing is lost, as `mixrec-automl show {name}` will tell") from error
        except DatabaseUnavailableError as error:
            raise UserError(
                f"the database does not answer, so the end of search {name!r} is not recorded ({error}): once it is "
                f"back, `mixrec-automl resume {name}` goes on"
            ) from error
        finally:
            is_urgent = stop.is_set() or projector.is_stuck
            if not projector.close(TRACKING_SECONDS_IN_A_HURRY if is_urgent else TRACKING_SECONDS):
                console.print("MLflow does not show all of it yet: mixrec-automl ui catches up", highlight=False)


def _check_writable(folder: Path) -> None:
    """Make `folder` and write into it. Raises UserError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"checkpoints cannot be written to {folder}: {error.strerror}; MIXREC_HOME moves it") from error
