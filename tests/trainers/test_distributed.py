"""Two workers train as one on the concatenated batch (float64, rows of unequal length)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from search_spaces.architecture import Architecture
from tests.ports import free_port
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.epochs import LAST
from trainers.finetune import finetune
from trainers.task import TrainingTask

DESIGN = Architecture.parse("010-101")
TOLERANCE = 1e-9


def layer_weights(task: TrainingTask) -> list[torch.Tensor]:
    return [weight for layer in task.backbone.layers for weight in layer.module.parameters()]


def work(
    rank: int, workers: int, port: int, folder: str, model: dict[str, Any], training: dict[str, Any], is_sharded: bool
) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=workers)
    config = tiny_config(model, **training)
    asked: list[int] = []

    def on_epoch(_: object) -> bool:
        asked.append(rank)
        return len(asked) < 2

    task = tiny_task()
    if is_sharded:
        whole = sum(weight.numel() for weight in layer_weights(task))
        task.backbone.shard(torch.device("cpu"))
    result = finetune(config, DESIGN, task, seed=0, folder=Path(folder), on_epoch=on_epoch)
    if is_sharded:
        parts = [weight.to_local() for weight in layer_weights(task) if isinstance(weight, DTensor)]
        assert sum(part.numel() for part in parts) <= 1.1 * whole / workers, "each has its part again"
        assert len(parts) == len(layer_weights(task))
    assert asked == ([0, 0] if rank == 0 else []), "rank 0 alone decides"
    assert result.epochs_run == 2, "every rank obeys"
    dist.barrier()  # whoever is still sending would be ended by the other's end
    dist.destroy_process_group()


OPTIONS = {"item_loss": "sampled_softmax", "sampled_items": 7, "activation_checkpointing": True}


KINDS = {"causal_expert": "lora", "context_expert": "none", "recommendation_adapter": "ia3"}


@pytest.mark.parametrize(
    ("model", "training", "is_sharded"),
    [
        ({}, {"batch_size": 5}, False),
        ({"collaborative_columns": "user+item"}, {"batch_size": 1}, False),
        ({}, {"batch_size": 5, **OPTIONS}, False),
        (KINDS, {"batch_size": 1}, False),
        ({}, {"batch_size": 5}, True),
        ({"collaborative_columns": "user+item"}, {"batch_size": 1}, True),
        ({}, {"batch_size": 1, **OPTIONS}, True),
        (KINDS, {"batch_size": 5, "lambda_align": 0.0}, True),
    ],
)
def test_two_workers_equal_one(
    tmp_path: Path, model: dict[str, Any], training: dict[str, Any], is_sharded: bool
) -> None:
    """A batch of one user leaves the second worker without a row: it must still take part. So it is where each has
    a part of the frozen layers alone."""
    config = tiny_config(model, **training)
    one = finetune(
        config, DESIGN, tiny_task(), seed=0, folder=tmp_path / "one", on_epoch=lambda report: report.epoch < 2
    )
    mp.spawn(work, args=(2, free_port(), str(tmp_path / "two"), model, training, is_sharded), nprocs=2)
    left, right = load_file(tmp_path / "one" / LAST), load_file(tmp_path / "two" / LAST)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert (value - right[name]).abs().max().item() < TOLERANCE, name
    assert one.mrr > 0
