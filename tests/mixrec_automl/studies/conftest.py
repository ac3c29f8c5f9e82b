"""Studies in threads, without Ray and MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import Training
from mixrec_automl.controller import SearchParts, run_search
from mixrec_automl.interruption import StopRequest
from mixrec_automl.lease import acquire
from mixrec_automl.search.proposer import Proposer
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import Search
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies import run as module
from tests.mixrec_automl.bench import Watching


def launch_in_threads(
    name: str,
    config: SearchConfig,
    training: Training,
    proposer: Proposer,
    repository: Repository,
    console: Console,  # noqa: ARG001
    *,
    record: Callable[[], object] = lambda: None,
    epochs_by_variant: Mapping[str, int],  # noqa: ARG001
) -> Search:
    """`launch` without Ray and MLflow, one trial at a time."""
    record()
    writer = acquire(repository, name)
    known, seen = repository.trials(name), repository.observations(name)
    make = partial(InProcessExecutor, training)
    epochs = config.training.epochs
    parts = SearchParts(writer, known, seen, epochs, proposer, make, Watching(), lambda: None)
    return run_search(config.search, 1, paths.runs_folder() / name, parts, StopRequest())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for all, so that data and backbone are made once."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXREC_HOME", str(folder))
        patch.delenv("MIXREC_DATABASE_URL", raising=False)
        patch.setattr(module, "launch", launch_in_threads)
        yield folder
