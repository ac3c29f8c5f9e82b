"""Runs a study like a search: with the same executor, database and MLflow, and resumed in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.baseline_training import BaselineTraining
from mixrec_automl.cluster.study_training import StudyTraining, VariantTraining
from mixrec_automl.cluster.training import Training
from mixrec_automl.holder import owner
from mixrec_automl.launch import launch
from mixrec_automl.preparation import Basis, prepare, prepare_model, prepare_without_backbone
from mixrec_automl.search.proposer import Proposer
from mixrec_automl.search_config import SearchConfig, for_a_study
from mixrec_automl.store.records import Search, SearchState, WarmStart, best_trial
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies.grid import GridProposer
from mixrec_automl.studies.study import Study, base_of, plan_study
from mixrec_automl.warm_start import warm_start_of
from search_spaces.architecture import Architecture
from trainers.errors import UserError


def search_name(name: str) -> str:
    """Of the search whose winner a study trains."""
    return f"{name}-search"


def run_study(
    study: Study,
    base: SearchConfig,
    seeds: Sequence[int],
    name: str,
    repository: Repository,
    console: Console,
    user_share: float = 1.0,
) -> Search:
    """Run what is still to run of the study recorded as `name`, its search first where it needs one.

    Neither prunes, whatever `base` says: a comparison needs every one of its trainings. Nor does the search vary
    settings: the variants say what differs.

    Args:
        user_share: share of the users that is trained on and tested.

    Returns:
        The study as recorded; or its search, where that did not complete.

    Raises:
        UserError: data or backbone cannot be had, a variant cannot be configured, or `name` was recorded with other
            settings; also as `launch` raises.
        KeyboardInterrupt: a second signal came.
    """
    base = for_a_study(base)
    searched: Architecture | None = None
    if study.needs_search:
        search = _run_search(base, search_name(name), repository, console)
        winner = best_trial(repository.trials(search.name))
        if search.state is not SearchState.COMPLETED or winner is None:
            return search
        searched = winner.architecture
    planned = len(study.variants) * len(seeds)
    base = replace(base, search=replace(base.search, user_share=user_share, trials=planned))
    prepared = prepare(base, console) if study.needs_backbone else None
    basis = prepare_without_backbone(base, console) if prepared is None else prepared.basis
    layers = 1 if prepared is None else len(prepared.training.load().backbone.layers)
    plan = plan_study(study, base, seeds, layers, searched, user_share)
    for variant, why in plan.left_out.items():
        console.print(f"left out: {variant}: {why}", highlight=False, markup=False)
    trained: list[tuple[str, VariantTraining]] = []
    epochs = {}
    for variant, config in plan.configs.items():
        baseline = plan.baselines.get(variant)
        if baseline is not None:
            prepare_model(config, baseline, console)
            folders = paths.data_folder(config.data.name), paths.backbones_folder()
            trained.append((variant, BaselineTraining(config, baseline, *folders)))
            epochs[variant] = config.baselines.of(baseline).epochs
        elif prepared is not None:
            trained.append((variant, replace(prepared.training, config=config)))
    return run_recorded(
        name,
        plan.base,
        plan.as_dict(),
        basis,
        StudyTraining(tuple(trained)),
        GridProposer(plan.cells),
        repository,
        console,
        epochs,
    )


def _run_search(config: SearchConfig, name: str, repository: Repository, console: Console) -> Search:
    from mixrec_automl.search.method import search_method  # seconds, which a study without a search need not spend

    prepared = prepare(config, console)
    warm_start = warm_start_of(name, config.search, repository)
    proposer = search_method(prepared.space, config.search, warm_start, prepared.cost)
    return run_recorded(
        name,
        config,
        config.as_dict(),
        prepared.basis,
        prepared.training,
        proposer,
        repository,
        console,
        warm_start=warm_start,
    )


def run_recorded(
    name: str,
    config: SearchConfig,
    stored: Mapping[str, Any],
    basis: Basis,
    training: Training,
    proposer: Proposer,
    repository: Repository,
    console: Console,
    epochs_by_variant: Mapping[str, int] = MappingProxyType({}),
    warm_start: WarmStart | None = None,
) -> Search:
    """Record and run, or go on with what was recorded; nothing where it is complete.

    Args:
        stored: what the database keeps as the search's configuration.
        epochs_by_variant: as `launch`.
        warm_start: what a new search keeps of another one.

    Raises:
        UserError: `name` was recorded with other settings or on other data; also as `launch` raises.
        KeyboardInterrupt: a second signal came.
    """
    if name not in {known.name for known in repository.searches()}:

        def record() -> None:
            repository.create_search(name, stored, basis.fingerprint, basis.floors, warm_start, owner())

        return launch(
            name,
            config,
            training,
            proposer,
            repository,
            console,
            record=record,
            epochs_by_variant=epochs_by_variant,
        )
    known = repository.search(name)
    # A key that is newer than the recording had its default then.
    recorded = {**known.config, **base_of(known.config, f"search {name}").as_dict()}
    # The machines may be others: they leave the scores as they are.
    differing = ", ".join(key for key in _differences(recorded, stored) if not key.startswith("cluster."))
    if differing:
        raise UserError(f"{name!r} was run with other settings ({differing}): choose another --name")
    if known.fingerprint != basis.fingerprint:
        raise UserError(
            f"{name!r} began on other data or another backbone, so its scores could not be compared: bring those back "
            "or choose another --name"
        )
    if known.state is SearchState.COMPLETED:
        return known
    return launch(name, config, training, proposer, repository, console, epochs_by_variant=epochs_by_variant)


def _differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Dotted keys at which two configurations differ."""
    if not isinstance(left, Mapping) or not isinstance(right, Mapping):
        return [] if left == right else [path]
    keys = list(dict.fromkeys([*left, *right]))
    return [
        found
        for key in keys
        for found in _differences(left.get(key), right.get(key), f"{path}.{key}" if path else str(key))
    ]
