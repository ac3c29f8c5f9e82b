"""Runs a promotion: training, test, registration and gate, recorded in database and MLflow."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.cluster.ray_session import fitting, ray_session
from mixrec_automl.epochs_bar import epochs_bar
from mixrec_automl.gate import Decision, challenge, check_comparable_data, first_champion
from mixrec_automl.interruption import raise_on_signals, stop_on_signals
from mixrec_automl.mlflow_promotion import PromotionRun
from mixrec_automl.promotion import (
    Evaluation,
    PromotionPlan,
    evaluate_package,
    flat_metrics,
    pack,
    train_winner,
)
from mixrec_automl.registry import ModelVersion, Registry, registered_name, scratch_folder
from mixrec_automl.store.records import Promotion, Search, SearchState
from mixrec_automl.store.repository import Repository
from trainers.data.sequence_data import SequenceData
from trainers.package import Package, read_package

EXAMPLE_ITEMS = 3


@dataclass(frozen=True)
class PromotionOutcome:
    """A finished promotion."""

    evaluations: tuple[Evaluation, ...]
    version: ModelVersion
    decision: Decision
    example_title: str
    """A title of the catalogue, for the command that is suggested next"""


def run_promotion(
    plan: PromotionPlan, search: Search, data: SequenceData, repository: Repository, console: Console, *, force: bool
) -> PromotionOutcome | None:
    """Train, test, pass the gate and register; None where Ctrl-C or SIGTERM stopped it.

    A signal ends the training after its epoch or after a few seconds, tests at once, and nothing once they are done:
    what follows takes seconds. What was trained is kept, so the same promotion goes on from there.

    Raises:
        UserError: too few resources, a champion of other data and no `force`, or no answer from the registry.
        PromotionError: the training raised.
    """
    registry = Registry(paths.tracking_uri())
    name = registered_name(plan.config.data.name)
    champion = registry.champion(name)
    if champion is not None:
        check_comparable_data(_called(champion), champion.data_fingerprint, data.fingerprint, force=force)
    with stop_on_signals() as stop:
        promotion = repository.add_promotion(search.name, plan.trial.number)
        run: PromotionRun | None = None
        try:
            with console.status("MLflow"):
                run = PromotionRun(repository, promotion, plan.trial, plan.began_with)
            is_trained = _train(plan, run, stop, console)
            with raise_on_signals():
                if not is_trained or stop.is_set():
                    raise KeyboardInterrupt
                package, evaluations = _test(plan, data, run, console)
                decision = _decide(evaluations[0], registry, name, data, console, force=force)
            with console.status("registering"):
                example = list(package.catalogue.ids[:EXAMPLE_ITEMS])
                version = registry.register(name, plan.package, run.id, example, data.fingerprint)
                _describe(registry, version, plan, evaluations, decision)
                if decision.moves:
                    registry.move_champion(version)
        except KeyboardInterrupt:
            _end(repository, promotion, run, SearchState.STOPPED)
            return None
        except BaseException:
            _end(repository, promotion, run, SearchState.FAILED, traceback.format_exc())
            raise
        run.finish()
        repository.finish_promotion(
            search.name,
            promotion.number,
            SearchState.COMPLETED,
            metrics=flat_metrics(evaluations),
            model_version=f"{version.name}/{version.version}",
        )
    return PromotionOutcome(evaluations, version, decision, package.catalogue.titles[0])


def _train(plan: PromotionPlan, run: PromotionRun, stop: Event, console: Console) -> bool:
    with ray_session() as scratch, epochs_bar(console, plan.config.training.epochs) as show:
        had = plan.config.cluster
        # A search may ask for more slots than a cluster has, and so for more CPUs here than there are.
        cluster = fitting(had, plan.fewest_workers)
        if cluster != had:
            console.print(f"with {cluster.cpus_per_worker} CPU each: there is room for no more", highlight=False)

        def on_epoch(event: EpochEnded) -> None:
            show(event)
            run.log(event.metrics, event.epoch)

        def on_trouble(what: str) -> None:
            console.print(what, highlight=False, markup=False, soft_wrap=True)

        fitted = replace(plan, config=replace(plan.config, cluster=cluster))
        return train_winner(fitted, (scratch or plan.folder) / "train", on_epoch, on_trouble, stop)


def _test(
    plan: PromotionPlan, data: SequenceData, run: PromotionRun, console: Console
) -> tuple[Package, tuple[Evaluation, ...]]:
    with console.status("packing the model and ranking every user's test item"):
        package = pack(plan)
        evaluations = evaluate_package(package, data)
    for evaluation in evaluations:
        file = plan.folder / evaluation.ranks.setting.file
        evaluation.ranks.write(file)
        run.keep(file)
    run.log(flat_metrics(evaluations), plan.config.training.epochs)
    return package, evaluations


def _decide(
    evaluation: Evaluation, registry: Registry, name: str, data: SequenceData, console: Console, *, force: bool
) -> Decision:
    champion = registry.champion(name)  # asked again: another promotion may have ended during the training
    if champion is None:
        return first_champion(evaluation)
    rival = _called(champion)
    with console.status(f"scoring {rival} again"), scratch_folder() as scratch:
        loaded = read_package(registry.fetch(champion, Path(scratch)))
        return challenge(evaluation, loaded, rival, data, force=force)


def _describe(
    registry: Registry,
    version: ModelVersion,
    plan: PromotionPlan,
    evaluations: tuple[Evaluation, ...],
    decision: Decision,
) -> None:
    shown = {
        f"test_{name}": f"{value:.4f}" for name, value in asdict(evaluations[0].metrics).items() if name != "users"
    }
    told = {"mixrec.gate": decision.reason, "mixrec.began_with": plan.began_with}
    registry.describe(version, {**shown, **told})


def _end(
    repository: Repository,
    promotion: Promotion,
    run: PromotionRun | None,
    state: SearchState,
    error: str | None = None,
) -> None:
    repository.finish_promotion(promotion.search, promotion.number, state, error=error)
    if run is not None:
        run.abandon("KILLED" if state is SearchState.STOPPED else "FAILED")


def _called(version: ModelVersion) -> str:
    return f"{version.name} version {version.version}"
