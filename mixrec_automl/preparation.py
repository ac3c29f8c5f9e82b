"""What a search needs before it starts: data and backbone at hand, checked against its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.finetune_training import FinetuneTraining
from mixrec_automl.search_config import SearchConfig
from search_spaces.damoe import DamoeSpace
from trainers.baselines.floors import cheap_floors
from trainers.data.prepare import open_or_prepare
from trainers.data.store_format import read_manifest
from trainers.metrics import summarise


@dataclass(frozen=True)
class Prepared:
    """A search whose inputs are there and fit together."""

    config: SearchConfig
    training: FinetuneTraining
    space: DamoeSpace
    fingerprint: str
    """Of data, users, tokeniser, backbone and all of the configuration that decides on scores"""
    floors: Mapping[str, float]
    """As `Search.floors`"""


def prepare(config: SearchConfig, console: Console) -> Prepared:
    """Bring data and backbone here where they are not yet, and derive from them, once, what all trials share.

    Raises:
        UserError: data or backbone cannot be had or do not fit the configuration.
    """
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
    training = FinetuneTraining(config, folder, paths.backbones_folder())
    with console.status(f"backbone {config.backbone.name}") as status:
        task = training.load(lambda stage: status.update(f"backbone {config.backbone.name}: {stage}"))
    layers = len(task.backbone.layers)
    space = DamoeSpace(layers, config.model.replacement_frequency)
    _say(console, f"data      {name}: {task.data.num_users:,} users in Data_BO, {task.data.num_items:,} items")
    kept = task.sampler(config.finetune, config.search.seed).share_of_targets_kept()
    _say(console, f"          a history of {config.data.history} keeps {kept:.1%} of their training targets")
    _say(console, f"          {task.hard_sets.anchor_share:.1%} of the trained items have hard negatives")
    _say(console, f"backbone  {config.backbone.name}, {layers} layers of width {task.backbone.width}")
    _say(console, f"space     {space.num_bits} bits, {space.size:,} designs; {config.search.trials} trials")
    below = {
        floor.name.replace("-", "_") + ("_unseen" if floor.exclude_seen else ""): summarise(floor.ranks).mrr
        for floor in cheap_floors(task.data, "validation")
    }
    return Prepared(config, training, space, _fingerprint(task.fingerprint, config), below)


def _fingerprint(task: str, config: SearchConfig) -> str:
    """Budget and machines leave the scores as they are; everything else decides on them."""
    stored = config.as_dict()
    deciding = {name: stored[name] for name in ("data", "backbone", "model", "training")}
    text = json.dumps([task, deciding, config.search.seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
