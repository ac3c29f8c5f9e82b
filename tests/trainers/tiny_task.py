"""A training task of seconds: a random tiny backbone and sequences that step through the catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.oracles.tiny_backbones import Family, tiny_backbone
from trainers.config import DataConfig, FinetuneConfig, ModelConfig, TrainingConfig
from trainers.data.batches import Layout
from trainers.data.hard_negatives import hard_sets
from trainers.data.sequence_data import Catalogue, ItemTokens, SequenceData
from trainers.model.backbone import as_backbone
from trainers.task import TrainingTask, frozen_align_states

NUM_ITEMS, NUM_USERS, VOCABULARY = 30, 24, 40


def sequences(seed: int = 0, num_users: int = NUM_USERS, num_items: int = NUM_ITEMS) -> SequenceData:
    """Users walk through the items in steps of one from a random start: the next item follows from the last."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 10, size=num_users)
    starts = rng.integers(num_items, size=num_users)
    walks = [(start + np.arange(length)) % num_items for start, length in zip(starts, lengths, strict=True)]
    names = tuple(f"item-{number}" for number in range(num_items))
    return SequenceData(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(walks).astype(np.int32),
        tuple(f"user-{number}" for number in range(num_users)),
        Catalogue(names, names, names),
        "walks",
    )


def tiny_tokens(num_items: int = NUM_ITEMS) -> ItemTokens:
    """Sentences of two to four tokens; the first two name the item."""
    rng = np.random.default_rng(7)
    rows = [
        np.array([6 + item % 17, 23 + item // 17, *rng.integers(6, VOCABULARY, size=item % 3)], dtype=np.int32)
        for item in range(num_items)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return ItemTokens(offsets, np.concatenate(rows))


def tiny_task(
    data: SequenceData | None = None, family: Family = "llama", dtype: torch.dtype = torch.float64
) -> TrainingTask:
    data = data or sequences()
    tokens = tiny_tokens(data.num_items)
    backbone = as_backbone(tiny_backbone(family).to(dtype))
    text = np.random.default_rng(5).normal(size=(data.num_items, 8)).astype(np.float32)
    counts = data.training_counts()
    layout = Layout.of(ModelConfig(), tokens, (3, 4, 5), 1, counts > 0)
    return TrainingTask(
        data=data,
        item_tokens=tokens,
        prompt=(3, 4, 5),
        bos_token=1,
        item_counts=counts,
        backbone=backbone,
        hard_sets=hard_sets(data, text, share=0.05, encoder="random"),
        align_states=frozen_align_states(backbone, layout, data.num_items),
        fingerprint="tiny",
    )


def tiny_config(model: dict[str, Any] | None = None, **training: Any) -> FinetuneConfig:
    defaults: dict[str, Any] = {"epochs": 3, "batch_size": 5, "learning_rate": 5e-3, "contrastive_negatives": 3}
    return FinetuneConfig(
        data=DataConfig(name="walks", history=6),
        model=ModelConfig(**{"bottleneck": 4, "collaborative_dim": 8, **(model or {})}),
        training=TrainingConfig(**{**defaults, **training}),
    )
