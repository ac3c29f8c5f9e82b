"""Evaluation against a loop over users, one at a time, and by two workers against one."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import sequences, tiny_config, tiny_task
from trainers.data.batches import Layout
from trainers.data.sequence_data import SequenceData
from trainers.evaluate import USERS_AT_ONCE, evaluate, score_histories, window
from trainers.model.mixrec import MixRec
from trainers.ranks import COLUMNS, Split, UserRanks
from trainers.task import TrainingTask, build_model

HISTORY = 4
CONFIG = tiny_config({"collaborative_columns": "user+item"})


def random_model(task: TrainingTask) -> MixRec:
    model = build_model(CONFIG, Architecture.parse("010-101"), task, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def parts(data: SequenceData | None = None) -> tuple[TrainingTask, MixRec, Layout]:
    task = tiny_task(data or sequences(num_users=2 * USERS_AT_ONCE + 5))
    return task, random_model(task), task.layout(CONFIG.model)


@torch.no_grad()
def rank_alone(
    model: MixRec, layout: Layout, data: SequenceData, user: int, split: Split, exclude_seen: bool
) -> tuple[int, float]:
    """(target, its rank): the user's row by itself, all states of it, the ranking sorted out item by item."""
    sequence = data.sequence(user).tolist()
    before, target = (sequence[:-2], sequence[-2]) if split == "validation" else (sequence[:-1], sequence[-1])
    row = before[-HISTORY:]
    scores = model.scores(layout.histories([row], [user]))[-1].float().tolist()
    rivals = [item for item in range(data.num_items) if item != target and not (exclude_seen and item in before)]
    above = sum(scores[item] > scores[target] for item in rivals)
    level = sum(scores[item] == scores[target] for item in rivals)
    return target, 1 + above + level / 2


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_equal_to_a_loop_over_users(split: Split, exclude_seen: bool) -> None:
    task, model, layout = parts()
    ranks = evaluate(model, layout, task.data, split, HISTORY, exclude_seen=exclude_seen)
    expected = [rank_alone(model, layout, task.data, user, split, exclude_seen) for user in range(task.data.num_users)]
    assert ranks.target.tolist() == [target for target, _ in expected]
    assert ranks.rank.tolist() == [rank for _, rank in expected]
    assert ranks.user.tolist() == list(task.data.user_ids)
    assert len(set(ranks.rank.tolist())) > 5, "the model does tell items apart"


def test_evaluation_leaves_dropout_and_gradients_alone() -> None:
    task, model, layout = parts()
    model.train()
    evaluate(model, layout, task.data, "test", HISTORY)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_window_fits_the_backbone_with_its_leading_token() -> None:
    task, model, layout = parts()
    items = np.arange(12, dtype=np.int32)
    lengths = task.item_tokens.lengths[items] + 1
    assert window(model, layout, items, 5) == list(range(7, 12))
    model.backbone.max_positions = int(lengths[-3:].sum())
    assert window(model, layout, items, 5) == [9, 10, 11]
    assert window(model, replace(layout, bos_token=1), items, 5) == [10, 11]


def test_a_user_unknown_to_the_collaborative_model_is_scored_without_a_column() -> None:
    _, model, layout = parts()
    unknown, known = (score_histories(model, layout, [[1, 2, 3]], [user])[0] for user in (-1, 0))
    without = score_histories(model, replace(layout, user_column=False), [[1, 2, 3]], [0])[0]
    assert unknown.equal(without)
    assert not unknown.equal(known)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for users in (37, 1):
        task, model, layout = parts(sequences(num_users=users))
        evaluate(model, layout, task.data, "test", HISTORY).write(Path(folder, f"{users}-{rank}.parquet"))
    dist.destroy_process_group()


def test_two_workers_give_the_table_of_one(tmp_path: Path) -> None:
    """Each user once and in the same order; one user leaves the second worker with nothing."""
    mp.spawn(work, args=(free_port(), str(tmp_path)), nprocs=2)
    for users in (37, 1):
        task, model, layout = parts(sequences(num_users=users))
        one = evaluate(model, layout, task.data, "test", HISTORY)
        for rank in (0, 1):
            two = UserRanks.read(tmp_path / f"{users}-{rank}.parquet")
            for column in COLUMNS:
                assert np.array_equal(getattr(one, column), getattr(two, column)), column
            assert (one.split, one.exclude_seen, one.fingerprint) == (two.split, two.exclude_seen, two.fingerprint)
