"""Evaluation against a loop over users, one at a time, one pass against separate ones, and two workers against one."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from search_spaces.architecture import Architecture
from tests.oracles.tiny_backbones import CONTEXT, FAMILIES, Family
from tests.ports import free_port
from tests.trainers.data.test_windows import walk_back
from tests.trainers.test_ranks import sequences as given_sequences
from tests.trainers.tiny_task import NUM_ITEMS, sequences, tiny_config, tiny_task
from trainers import evaluate as module
from trainers.data.batches import Layout
from trainers.data.sequence_data import SequenceData, Split
from trainers.evaluate import evaluate, known_users, score_histories, window
from trainers.model.mixrec import MixRec
from trainers.ranks import COLUMNS, Setting, UserRanks
from trainers.task import TrainingTask, build_model

HISTORY, NUM_USERS = 4, 37
CONFIG = tiny_config({"collaborative_columns": "user+item"})
SETTINGS = [Setting(split, seen) for seen in (False, True) for split in ("test", "validation")]


@pytest.fixture(autouse=True)
def _few_tokens_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some users take many passes."""
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 64)


def random_model(task: TrainingTask) -> MixRec:
    model = build_model(CONFIG, Architecture.parse("010-101"), task, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def parts(data: SequenceData | None = None, family: Family = "llama") -> tuple[TrainingTask, MixRec, Layout]:
    task = tiny_task(data or sequences(num_users=NUM_USERS), family)
    return task, random_model(task), task.layout(CONFIG.model)


@cache
def tiny_parts() -> tuple[TrainingTask, MixRec, Layout]:
    """For many examples; whoever changes a part undoes it."""
    return parts()


@torch.no_grad()
def rank_alone(
    model: MixRec, layout: Layout, data: SequenceData, user: int, setting: Setting, history: int = HISTORY
) -> tuple[int, float]:
    """(target, its rank): the user's row by itself, all states of it, the ranking sorted out item by item."""
    sequence = data.sequence(user).tolist()
    before, target = (sequence[:-2], sequence[-2]) if setting.split == "validation" else (sequence[:-1], sequence[-1])
    context = model.backbone.max_positions - (layout.bos_token is not None)
    row = walk_back(before, layout.item_tokens, history, context)
    is_trained = len(sequence) - 2 >= 2  # else M_cf has no vector of this user that a step has trained
    scores = model.scores(layout.histories([row], [user if is_trained else -1]))[-1].float().tolist()
    excluded = before if setting.exclude_seen else []
    rivals = [item for item in range(data.num_items) if item != target and item not in excluded]
    above = sum(scores[item] > scores[target] for item in rivals)
    level = sum(scores[item] == scores[target] for item in rivals)
    return target, 1 + above + level / 2


def assert_same(left: UserRanks, right: UserRanks) -> None:
    for column in COLUMNS:
        assert np.array_equal(getattr(left, column), getattr(right, column)), column
    assert (left.split, left.exclude_seen, left.fingerprint) == (right.split, right.exclude_seen, right.fingerprint)


@pytest.mark.parametrize("setting", SETTINGS)
def test_equal_to_a_loop_over_users(setting: Setting) -> None:
    task, model, layout = parts()
    (ranks,) = evaluate(model, layout, task.data, [setting], HISTORY)
    expected = [rank_alone(model, layout, task.data, user, setting) for user in range(task.data.num_users)]
    assert ranks.target.tolist() == [target for target, _ in expected]
    assert ranks.rank.tolist() == [rank for _, rank in expected]
    assert ranks.user.tolist() == list(task.data.user_ids)
    assert len(set(ranks.rank.tolist())) > 5, "the model does tell items apart"


def walks(*lengths: int) -> SequenceData:
    """Users that step through the items from a start of their own."""
    rows = [[(7 * user + step) % NUM_ITEMS for step in range(length)] for user, length in enumerate(lengths)]
    return given_sequences(*rows, items=NUM_ITEMS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize(
    ("history", "context", "shared"),
    [
        (50, CONTEXT, 20),  # nothing is cut: one row a user, of one or two readouts
        (4, CONTEXT, 6),  # cut where more than four items were seen
        (50, 15, None),  # cut by the context, which holds three or four items
        (1, CONTEXT, 0),  # no row has two items
    ],
)
def test_one_pass_equals_separate_ones(
    family: Family,
    bos: int | None,
    history: int,
    context: int,
    shared: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row that the test history shares with the validation history is read once, and no other."""
    data = walks(*[3, 4, 5] * 2, *range(6, 20))
    _, model, layout = parts(data, family)
    layout, model.backbone.max_positions = replace(layout, bos_token=bos), context
    rows: dict[int, int] = {1: 0, 2: 0}

    def counting(*arguments: object, read_newest: int) -> Tensor:
        rows[read_newest] += len(arguments[2])  # type: ignore[arg-type]
        return score_histories(*arguments, read_newest=read_newest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(module, "score_histories", counting)
        patched.setattr("trainers.ranks.SCORES_AT_ONCE", 1)
        patched.setattr("trainers.ranks.USERS_AT_LEAST", 7)
        together = evaluate(model, layout, data, SETTINGS, history)
    assert rows[1] + 2 * rows[2] == 2 * data.num_users
    if shared is None:
        assert 0 < rows[2] < data.num_users, "some windows are shared and some are not"
    else:
        assert rows[2] == shared
    for setting, table in zip(SETTINGS, together, strict=True):
        (alone,) = evaluate(model, layout, data, [setting], history)
        assert_same(table, alone)
        expected = [rank_alone(model, layout, data, user, setting, history) for user in range(data.num_users)]
        assert table.rank.tolist() == [rank for _, rank in expected]


def test_evaluation_leaves_dropout_and_gradients_alone() -> None:
    task, model, layout = parts()
    model.train()
    evaluate(model, layout, task.data, [Setting("test")], HISTORY)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_window_fits_the_backbone_with_its_leading_token() -> None:
    task, model, layout = parts()
    items = np.arange(12, dtype=np.int32)
    lengths = task.item_tokens.lengths[items] + 1
    assert window(model, layout, items, 5) == list(range(7, 12))
    model.backbone.max_positions = int(lengths[-3:].sum())
    assert window(model, layout, items, 5) == [9, 10, 11]
    assert window(model, replace(layout, bos_token=1), items, 5) == [10, 11]


def test_histories_are_scored_in_the_order_given() -> None:
    """Whatever the order in which rows of like length run; the newest two items of each are read, the older first."""
    _, model, layout = parts()
    histories = [[1, 2, 3, 4, 5, 6, 7], [4, 5], [9, 8, 7, 6], [0, 11], [2, 3, 4]]
    found = score_histories(model, layout, histories, [0, 1, 2, -1, 4], read_newest=2)
    for place, (history, user) in enumerate(zip(histories, [0, 1, 2, -1, 4], strict=True)):
        for back, row in ((1, history), (2, history[:-1])):
            alone = score_histories(model, layout, [row], [user])[0]
            torch.testing.assert_close(found[2 * place + 2 - back], alone, atol=1e-6, rtol=0)


def test_a_user_unknown_to_the_collaborative_model_is_scored_without_a_column() -> None:
    _, model, layout = parts()
    unknown, known = (score_histories(model, layout, [[1, 2, 3]], [user])[0] for user in (-1, 0))
    without = score_histories(model, replace(layout, user_column=False), [[1, 2, 3]], [0])[0]
    assert unknown.equal(without)
    assert not unknown.equal(known)


def test_a_vector_that_was_never_trained_is_not_read() -> None:
    """With one training item there is no next one to predict, so the user is in no step of the training."""
    data = walks(3, 4, 3, 6)
    _, model, layout = parts(data)
    assert known_users(model, data).tolist() == [-1, 1, -1, 3]
    before = evaluate(model, layout, data, SETTINGS, HISTORY)
    with torch.no_grad():
        for name, table in model.named_parameters():
            if name.startswith("collaborative.") and "user" in name and len(table) == data.num_users:
                table[[0, 2]] = 9.0
    for left, right in zip(before, evaluate(model, layout, data, SETTINGS, HISTORY), strict=True):
        assert_same(left, right)
    frozen = replace(model.config, collaborative_training="frozen")
    model.config = frozen
    assert known_users(model, data).tolist() == [0, 1, 2, 3], "a pretraining takes every interaction"


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for users in (37, 1):
        task, model, layout = parts(sequences(num_users=users))
        for table in evaluate(model, layout, task.data, SETTINGS, HISTORY):
            table.write(Path(folder, f"{users}-{rank}-{table.split}-{table.exclude_seen}.parquet"))
    dist.barrier()  # whoever is still sending would be ended by the other's end
    dist.destroy_process_group()


def test_two_workers_give_the_tables_of_one(tmp_path: Path) -> None:
    """Each user once and in the same order; one user leaves the second worker with nothing."""
    mp.spawn(work, args=(free_port(), str(tmp_path)), nprocs=2)
    for users in (37, 1):
        task, model, layout = parts(sequences(num_users=users))
        splits: set[tuple[Split, bool]] = set()
        for one in evaluate(model, layout, task.data, SETTINGS, HISTORY):
            splits.add((one.split, one.exclude_seen))
            for rank in (0, 1):
                assert_same(one, UserRanks.read(tmp_path / f"{users}-{rank}-{one.split}-{one.exclude_seen}.parquet"))
        assert len(splits) == 4
