"""What a search needs before it starts: data and backbone at hand, checked against its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.baseline_training import BaselineTraining
from mixrec_automl.cluster.finetune_training import FinetuneTraining
from mixrec_automl.config import with_settings
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.parameter_cost import parameter_cost
from mixrec_automl.search_config import SearchConfig, without_settings
from search_spaces.mixed import Value
from trainers.baselines.config import BaselineName
from trainers.baselines.floors import cheap_floors
from trainers.data.prepare import open_or_prepare
from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import read_manifest
from trainers.data.users import open_users
from trainers.metrics import summarise
from trainers.task import TrainingTask, trainable_parameters


@dataclass(frozen=True)
class Basis:
    """What a search is recorded with: scores on another one do not compare."""

    fingerprint: str
    """Of data, users, all of the configuration that decides on scores and, where one is read, tokeniser and backbone"""
    floors: Mapping[str, float]
    """As `Search.floors`"""


@dataclass(frozen=True)
class Prepared:
    """A search whose inputs are there and fit together."""

    config: SearchConfig
    training: FinetuneTraining
    space: DesignSpace
    basis: Basis
    cost: KnownCost | None
    """Of the second objective, where there is one"""


def prepare(config: SearchConfig, console: Console) -> Prepared:
    """Bring data and backbone here where they are not yet, and derive from them, once, what all trials share.

    Raises:
        UserError: data or backbone cannot be had or do not fit the configuration.
    """
    folder, name = _prepare_data(config, console), config.data.name
    training = FinetuneTraining(config, folder, paths.backbones_folder())
    with console.status(f"backbone {config.backbone.name}") as status:
        task = training.load(lambda stage: status.update(f"backbone {config.backbone.name}: {stage}"))
    layers = len(task.backbone.layers)
    space = DesignSpace.of(config, layers)
    _tell_users(console, name, task.data)
    kept = task.sampler(config.finetune, config.search.seed).share_of_targets_kept()
    _say(console, f"          a history of {config.data.history} keeps {kept:.1%} of their training targets")
    _say(console, f"          {task.hard_sets.anchor_share:.1%} of the trained items have hard negatives")
    _say(console, f"backbone  {config.backbone.name}, {layers} layers of width {task.backbone.width}")
    _say(console, f"space     {space}; {config.search.trials} trials")
    cost = _cost(config, space, task, console)
    return Prepared(config, training, space, _basis(task.fingerprint, config, task.data), cost)


def prepare_without_backbone(config: SearchConfig, console: Console) -> Basis:
    """Bring the data here, for models without a backbone.

    Raises:
        UserError: the data cannot be had.
    """
    data = open_users(_prepare_data(config, console), config.search.user_share, config.search.seed)
    _tell_users(console, config.data.name, data)
    return _basis(f"{data.fingerprint} {data.num_users}", config, data)


def prepare_model(config: SearchConfig, baseline: BaselineName, console: Console) -> None:
    """Build `baseline` once, which brings the texts and first weights that it reads here: a failure is told at once.

    Raises:
        UserError: encoder or weights cannot be had or read, or do not fit.
    """
    training = BaselineTraining(config, baseline, paths.data_folder(config.data.name), paths.backbones_folder())
    with console.status(f"texts and first weights of {baseline}"):
        training.build(training.data())


def _cost(config: SearchConfig, space: DesignSpace, task: TrainingTask, console: Console) -> KnownCost | None:
    if config.search.second_objective is None:
        return None

    # Without what it declares: that has been checked, value by value, and would be again at every call.
    bare = without_settings(config)

    def count(settings: Mapping[str, Value]) -> int:
        own = with_settings(bare, settings, "a design")
        return trainable_parameters(own.finetune, task)

    with console.status("sizes of the designs"):
        cost, least, most = parameter_cost(space, count)
    _say(console, f"sizes     {least:,} to {most:,} trainable parameters")
    return cost


def _prepare_data(config: SearchConfig, console: Console) -> Path:
    """The folder of the prepared data; prints the counts where it is new."""
    folder, name = paths.data_folder(config.data.name), config.data.name
    is_new = not folder.exists()
    with console.status(f"data set {name}") as status:
        open_or_prepare(
            name,
            config.data.filters,
            folder,
            paths.downloads_folder(),
            progress=lambda stage: status.update(f"data set {name}: {stage}"),
        )
    if is_new:
        for at in read_manifest(folder).counts:
            _say(console, f"{at.step}: {at.users:,} users, {at.items:,} items, {at.interactions:,} interactions")
    return folder


def _tell_users(console: Console, name: str, data: SequenceData) -> None:
    _say(console, f"data      {name}: {data.num_users:,} users in Data_BO, {data.num_items:,} items")


def _basis(read: str, config: SearchConfig, data: SequenceData) -> Basis:
    below = {
        floor.name.replace("-", "_") + ("_unseen" if floor.exclude_seen else ""): summarise(floor.ranks).mrr
        for floor in cheap_floors(data, "validation")
    }
    return Basis(_fingerprint(read, config), below)


def _fingerprint(read: str, config: SearchConfig) -> str:
    """Budget and machines leave the scores as they are; everything else decides on them."""
    stored = config.as_dict()
    deciding = {name: stored[name] for name in ("data", "backbone", "model", "training")}
    text = json.dumps([read, deciding, config.search.seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
