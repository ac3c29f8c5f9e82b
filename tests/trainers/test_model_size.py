"""The counted size against the model that is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.task import TrainingTask, build_model, trainable_parameters

CHANGES: list[dict[str, Any]] = [
    {},
    {"causal_expert": "lora", "context_expert": "ia3", "recommendation_adapter": "none"},
    {"causal_expert": "none", "context_expert": "bottleneck", "recommendation_adapter": "lora", "bottleneck": 7},
    {"recommendation_adapter": "ia3", "replacement_frequency": 2},
    {"collaborative_columns": "none"},
    {"collaborative_columns": "user+item", "collaborative_model": "mf", "collaborative_dim": 6},
    {"collaborative_training": "frozen"},
    {"item_projection_form": "text+free"},
]


@pytest.fixture(scope="module")
def task() -> TrainingTask:
    return tiny_task()


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_size_is_that_of_what_the_optimiser_gets(task: TrainingTask, change: dict[str, Any]) -> None:
    config = tiny_config(change, collaborative_epochs=1)
    space = DamoeSpace(len(task.backbone.layers), config.model.replacement_frequency)
    random_state = torch.get_rng_state()
    counted = trainable_parameters(config, task)
    assert torch.equal(torch.get_rng_state(), random_state)
    for bit in (0, 1):
        model = build_model(config, Architecture.from_bits([bit] * space.num_bits), task, seed=0)
        assert counted == sum(own.numel() for own in model.parameters() if own.requires_grad)
