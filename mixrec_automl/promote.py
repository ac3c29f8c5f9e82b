"""Runs a promotion, recorded in database and MLflow."""

from __future__ import annotations

import traceback
from contextlib import suppress
from functools import partial

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.claim import claim, is_claimed
from mixrec_automl.full_run import FullRun, Outcome
from mixrec_automl.full_training import FullTraining, flat_metrics
from mixrec_automl.gate import challenge, check_comparable_data
from mixrec_automl.interruption import StopRequest, stop_on_signals
from mixrec_automl.mlflow_model_run import ModelRun, run_of_promotion
from mixrec_automl.patience import Patience
from mixrec_automl.registry import ModelVersion, Registry, registered_name
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.records import KILLED, Promotion, Search, SearchState, Trial
from mixrec_automl.store.repository import Repository
from trainers.data.sequence_data import SequenceData
from trainers.errors import UserError


def run_promotion(
    plan: FullTraining,
    search: Search,
    trial: Trial,
    data: SequenceData,
    repository: Repository,
    console: Console,
    *,
    force: bool,
) -> Outcome | None:
    """Carry out `plan`, which trains `trial` of `search` anew; None where Ctrl-C or SIGTERM stopped it.

    Raises:
        UserError: as `FullRun.carry_out`; also a champion of other data and no `force`, or another process at it.
        FullTrainingError: the training raised.
    """
    registry = Registry(paths.tracking_uri())
    full = FullRun(plan, data, registry, registered_name(plan.config.data.name), console)
    champion = registry.champion(full.name)
    if champion is not None:
        check_comparable_data(str(champion), champion.data_fingerprint, data.fingerprint, force=force)
        if not force:
            _check_readable(registry, champion)
    with claim(plan.folder, plan.what), stop_on_signals() as stop:
        _end_abandoned(repository, plan, search.name, trial.number)
        promotion = repository.add_promotion(search.name, trial.number)
        run: ModelRun | None = None
        try:
            with console.status("MLflow"):
                run = run_of_promotion(repository, promotion, plan)
            outcome = full.carry_out(run, stop, partial(challenge, data=data, force=force))
        except KeyboardInterrupt:
            _end(repository, promotion, run, SearchState.STOPPED)
            return None
        except BaseException:
            _end(repository, promotion, run, SearchState.FAILED, traceback.format_exc())
            raise
        Patience(stop, full.tell)(
            lambda: repository.finish_promotion(
                search.name,
                promotion.number,
                SearchState.COMPLETED,
                metrics=flat_metrics(outcome.evaluations),
                model_version=outcome.version.reference,
            )
        )
        run.finish()
    return outcome


def _end_abandoned(repository: Repository, plan: FullTraining, search: str, trial: int) -> None:
    """Promotions of `trial` whose process was killed could not say so; `plan` is this process's by now."""
    if any(is_claimed(other) for other in plan.folder.parent.glob(f"trial-{trial}-*") if other != plan.folder):
        return
    for one in repository.promotions(search):
        if one.trial == trial and one.state is SearchState.RUNNING:
            repository.finish_promotion(search, one.number, SearchState.FAILED, error=KILLED)


def _check_readable(registry: Registry, champion: ModelVersion) -> None:
    try:
        registry.check_files(champion)
    except UserError as error:
        raise UserError(f"{error}, or give --force to replace it unseen") from error


def _end(
    repository: Repository,
    promotion: Promotion,
    run: ModelRun | None,
    state: SearchState,
    error: str | None = None,
) -> None:
    """Silent where the database is what failed: whoever ends it has the error."""
    if run is not None:
        run.abandon("KILLED" if state is SearchState.STOPPED else "FAILED")
    patiently = Patience(StopRequest(), lambda _: None)
    patiently.hurry()
    with suppress(DatabaseUnavailableError):
        patiently(lambda: repository.finish_promotion(promotion.search, promotion.number, state, error=error))
