"""A tiny recommender made the real way: prepared from files, trained for seconds, packed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.architecture import Architecture
from tests.oracles.tiny_backbones import Family
from tests.trainers.data.files import shop_items, shop_sequences, write_jsonl
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from trainers.config import BackboneConfig, DataConfig, FinetuneConfig, ModelConfig, TrainingConfig
from trainers.data.prepare import prepare
from trainers.data.sources import Source
from trainers.epochs import BEST
from trainers.finetune import finetune
from trainers.package import write_package
from trainers.task import TrainingTask, load_task

DESIGN = Architecture.parse("010")
NUM_USERS, NUM_ITEMS, HISTORY = 40, 16, 4
NEW_USERS, NEW_ITEMS = 10, 4
"""Of the shop that has grown; nobody takes its item `NUM_ITEMS - 1` any more"""


@dataclass(frozen=True)
class Made:
    """All that a package came from."""

    config: FinetuneConfig
    task: TrainingTask
    training: Path
    package: Path


def prepare_shop(root: Path, folder: Path, *, length: int = 6) -> str:
    """Prepare the shop into `folder`. Returns the fingerprint.

    Users step through all items but the last one, which some find in the end: no training part holds it.
    """
    sequences = shop_sequences(NUM_USERS, NUM_ITEMS - 1, length)
    for sequence in sequences[-5:]:
        sequence["items"][-1] = f"i{NUM_ITEMS - 1}"
    source = Source(
        items=write_jsonl(root / "items.jsonl", shop_items(NUM_ITEMS)),
        sequences=write_jsonl(root / "sequences.jsonl", sequences),
    )
    return prepare("shop", source, DataConfig(name="shop").filters, folder).fingerprint


def prepare_newer_shop(root: Path, folder: Path) -> str:
    """Prepare what has become of the shop into `folder`: new items and users, and each old user took a new item and
    went on. Returns the fingerprint."""
    known = NUM_ITEMS - 1
    sequences = shop_sequences(NUM_USERS + NEW_USERS, known, 6)
    for user, sequence in enumerate(sequences):
        sequence["items"] += [f"i{NUM_ITEMS + user % NEW_ITEMS}", f"i{(2 * user + 6) % known}"]
        sequence["ts"] += [10**6 + user, 2 * 10**6 + user]
    source = Source(
        items=write_jsonl(root / "newer-items.jsonl", shop_items(NUM_ITEMS + NEW_ITEMS)),
        sequences=write_jsonl(root / "newer-sequences.jsonl", sequences),
    )
    return prepare(folder.name, source, DataConfig(name="shop").filters, folder).fingerprint


def shop_config(backbone: Path, model: dict[str, Any] | None = None, **training: Any) -> FinetuneConfig:
    rates = {"learning_rate": 1e-2, "batch_size": 10, "contrastive_negatives": 3}
    return FinetuneConfig(
        data=DataConfig(name="shop", history=HISTORY),
        backbone=BackboneConfig(name=str(backbone)),
        model=ModelConfig(**{"bottleneck": 4, "collaborative_dim": 8, **(model or {})}),
        training=TrainingConfig(**{"epochs": 2, **rates, **training}),
    )


def make_package(
    root: Path, family: Family = "llama", model: dict[str, Any] | None = None, *, length: int = 6, **training: Any
) -> Made:
    """Everything below `root`; the package in `root / "package"`."""
    root.mkdir(parents=True, exist_ok=True)
    prepare_shop(root, root / "data", length=length)
    config = shop_config(write_tiny_backbone(root / "backbone", family), model, **training)
    task = load_task(config, root / "data", root / "backbones")
    finetune(config, DESIGN, task, seed=0, folder=root / "training", on_epoch=lambda _: True)
    write_package(root / "package", config, DESIGN, task, root / "training" / BEST, root / "backbones")
    return Made(config, task, root / "training", root / "package")
