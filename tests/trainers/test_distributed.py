"""Two workers train as one on the concatenated batch (float64, rows of unequal length)."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.epochs import LAST
from trainers.finetune import finetune

DESIGN = Architecture.parse("010-101")
TOLERANCE = 1e-9


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def work(rank: int, workers: int, port: int, folder: str, model: dict[str, Any], training: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=workers)
    config = tiny_config(model, **training)
    asked: list[int] = []

    def on_epoch(_: object) -> bool:
        asked.append(rank)
        return len(asked) < 2

    result = finetune(config, DESIGN, tiny_task(), seed=0, folder=Path(folder), on_epoch=on_epoch)
    assert asked == ([0, 0] if rank == 0 else []), "rank 0 alone decides"
    assert result.epochs_run == 2, "every rank obeys"
    dist.destroy_process_group()


OPTIONS = {"item_loss": "sampled_softmax", "sampled_items": 7, "activation_checkpointing": True}


KINDS = {"causal_expert": "lora", "context_expert": "none", "recommendation_adapter": "ia3"}


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({}, {"batch_size": 5}),
        ({"collaborative_columns": "user+item"}, {"batch_size": 1}),
        ({}, {"batch_size": 5, **OPTIONS}),
        (KINDS, {"batch_size": 1}),
    ],
)
def test_two_workers_equal_one(tmp_path: Path, model: dict[str, Any], training: dict[str, Any]) -> None:
    """A batch of one user leaves the second worker without a row: it must still take part."""
    config = tiny_config(model, **training)
    one = finetune(
        config, DESIGN, tiny_task(), seed=0, folder=tmp_path / "one", on_epoch=lambda report: report.epoch < 2
    )
    mp.spawn(work, args=(2, free_port(), str(tmp_path / "two"), model, training), nprocs=2)
    left, right = load_file(tmp_path / "one" / LAST), load_file(tmp_path / "two" / LAST)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert (value - right[name]).abs().max().item() < TOLERANCE, name
    assert one.mrr > 0
