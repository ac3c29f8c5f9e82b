"""`SearchResult.promote`: the promotion of the command line, with its outcome as a value instead of in print."""

from __future__ import annotations

from contextlib import closing

from mixrec_automl import paths
from mixrec_automl.cli.tables import make_console
from mixrec_automl.full_run import Outcome
from mixrec_automl.promote import run_promotion
from mixrec_automl.promotion import plan_promotion
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import Search, Trial
from mixrec_automl.store.repository import Repository
from trainers.data.prepare import open_or_prepare


def promote(
    search: Search, config: SearchConfig, trial: Trial, workers: int | None, *, from_trial: bool, force: bool
) -> Outcome:
    """As `SearchResult.promote`, of a completed trial of `search`, whose configuration is `config`."""
    console, name = make_console(), config.data.name
    with console.status(f"data set {name}"):
        data = open_or_prepare(name, config.data.filters, paths.data_folder(name), paths.downloads_folder())
    plan = plan_promotion(search, config, trial, data, workers, from_trial=from_trial)
    with closing(Repository.open()) as repository:
        outcome = run_promotion(plan, search, trial, data, repository, console, force=force)
    if outcome is None:
        raise KeyboardInterrupt(f"the promotion of search {search.name} is stopped; the same call goes on with it")
    return outcome
