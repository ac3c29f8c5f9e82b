"""The parts of the comparison with RecBole that need no RecBole: input, guard of the split, ranks, verdict, resumption.

A stand-in for its interpreter or its modules takes the place of RecBole.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from mixrec_automl import paths
from tests.trainers.tiny_task import sequences
from tools.recbole_parity.compare import MODELS, main
from tools.recbole_parity.environment import REQUIREMENTS
from tools.recbole_parity.recbole_input import CLASSES, DATA_SET, recbole_settings, write_input
from tools.recbole_parity.sides import TEST, VALIDATION, Comparison, kept, ours, rank_table, recbole, same_step
from tools.recbole_parity.verdict import Verdict, verdict, verdicts_table
from trainers.baselines.config import BaselinesConfig, SequentialConfig
from trainers.baselines.rows import TrainingWindows
from trainers.baselines.sequential import next_items
from trainers.data.sequence_data import Catalogue, SequenceData
from trainers.errors import UserError
from trainers.metrics import per_user
from trainers.ranks import UserRanks


def config_of(model: str, **changed: Any) -> SequentialConfig:
    return replace(cast(Any, BaselinesConfig()).of(model), **changed)


def shuffled(data: SequenceData) -> SequenceData:
    """Sequences in which neither index nor name tells the order."""
    return replace(data, items=np.random.default_rng(3).permutation(data.items))


def read_back(path: Path) -> list[dict[str, str]]:
    heading, *rows = path.read_text().splitlines()
    names = [field.partition(":")[0] for field in heading.split("\t")]
    return [dict(zip(names, row.split("\t"), strict=True)) for row in rows]


def test_the_input_split_by_time_is_our_split(tmp_path: Path) -> None:
    data = shuffled(sequences())
    write_input(data, config_of("sasrec"), tmp_path)
    rows = read_back(tmp_path / DATA_SET / f"{DATA_SET}.inter")
    for user in range(data.num_users):
        own = [row for row in rows if row["user_id"] == f"u{user}"]
        items = [int(row["item_id"][1:]) for row in sorted(own, key=lambda row: float(row["timestamp"]))]
        assert items[:-2] == data.training(user).tolist()
        held_out = [int(data.items[data.places(split, np.array([user]))[0]]) for split in ("validation", "test")]
        assert items[-2:] == held_out
    assert len(rows) == len(data.items)
    assert len(read_back(tmp_path / DATA_SET / f"{DATA_SET}.item")) == data.num_items


def test_fdsa_gets_the_words_that_ours_reads(tmp_path: Path) -> None:
    ids = ("a", "b", "c")
    catalogue = Catalogue(ids, ids, ("blue pen ink", "pen blue rare", "cap"))
    data = replace(sequences(num_items=3), catalogue=catalogue)
    write_input(data, config_of("fdsa"), tmp_path)
    words = [row["word"].split() for row in read_back(tmp_path / DATA_SET / f"{DATA_SET}.item")]
    assert words == [["w0", "w1"], ["w1", "w0"], []]  # blue is w0, pen w1; the others are of one item


@pytest.mark.parametrize("model", MODELS)
def test_recbole_gets_our_settings(model: str, tmp_path: Path) -> None:
    data, changed = sequences(), {"width": 24, "layers": 3, "dropout": 0.15, "patience": 7, "epochs": 33}
    config = config_of(model, learning_rate=0.02, **changed)
    found = recbole_settings(config, data, train_batch=99, seed=5, folder=tmp_path)
    expected = {"learning_rate": 0.02, "epochs": 33, "train_batch_size": 99, "seed": 5, "loss_type": "CE"}
    assert found.items() >= expected.items()
    assert found["stopping_step"] == 6, "it stops after one epoch more than this"
    assert (found["topk"], found["valid_metric"]) == ([30], "MRR@30"), "no cut-off"
    assert found["MAX_ITEM_LIST_LENGTH"] == max(np.diff(data.offsets)) - 1
    sizes = {"embedding_size": 24, "num_layers": 3, "dropout_prob": 0.15}
    transformer = {"hidden_size": 24, "n_layers": 3, "hidden_dropout_prob": 0.15, "attn_dropout_prob": 0.15}
    assert found.items() >= (sizes if model == "gru4rec" else transformer).items()
    assert CLASSES[type(config)].lower() == model


def test_its_step_has_as_many_targets_as_ours() -> None:
    data, config = sequences(), config_of("sasrec", batch_size=6, history=4)
    rows = list(TrainingWindows.of(data, 4).batches(6, np.random.default_rng(0)))
    targets = sum(int(next_items(batch, data.num_items)[2].sum()) for batch in rows)
    assert same_step(config, data) == pytest.approx(targets / len(rows), abs=0.5 + 6 / len(rows))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker, with empty modules for RecBole's."""
    names = {"recbole": (), "recbole.config": ("Config",), "recbole.data": ("create_dataset", "data_preparation")}
    names["recbole.utils"] = ("get_model", "get_trainer", "init_logger", "init_seed")
    for name, members in names.items():
        module = ModuleType(name)
        vars(module).update(dict.fromkeys(members))
        monkeypatch.setitem(sys.modules, name, module)
    name = "tools.recbole_parity.recbole_side"
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def part_of(rows: Sequence[tuple[int, list[int], int]]) -> Any:
    """A data set as RecBole has it: tokens numbered from 1 in an order of its own, histories filled up with 0."""
    tokens = {"user_id": ["[PAD]", "u1", "u0"], "item_id": ["[PAD]", *(f"i{item}" for item in range(9, -1, -1))]}
    number = {token: place for field in tokens.values() for place, token in enumerate(field)}
    columns = {
        "user_id": [number[f"u{user}"] for user, _, _ in rows],
        "item_id": [number[f"i{target}"] for _, _, target in rows],
        "item_length": [len(history) for _, history, _ in rows],
        "item_id_list": [[number[f"i{item}"] for item in history] + [0] * (3 - len(history)) for _, history, _ in rows],
    }
    return SimpleNamespace(
        field2id_token=tokens, inter_feat={name: torch.tensor(column) for name, column in columns.items()}
    )


def test_the_worker_refuses_another_split(worker: Any) -> None:
    asked = [[4, 7, 2, 9, 1], [3, 8, 5, 6]]
    training = [(1, [3], 8), (0, [4, 7], 2), (0, [4], 7)]
    validation = [(0, [4, 7, 2], 9), (1, [3, 8], 5)]
    test = [(0, [7, 2, 9], 1), (1, [3, 8, 5], 6)]  # three items are read at most
    worker.check_split([part_of(rows) for rows in (training, validation, test)], asked, 3)
    for wrong in ([*training, (0, [7, 2, 9], 1)], training[:-1], [*training[:-1], (0, [4], 2)]):
        with pytest.raises(SystemExit, match="training rows are not those of our split"):
            worker.check_split([part_of(rows) for rows in (wrong, validation, test)], asked, 3)
    with pytest.raises(SystemExit, match="test rows"):
        worker.check_split([part_of(rows) for rows in (training, validation, validation)], asked, 3)


def test_the_worker_counts_items_above_and_level(worker: Any) -> None:
    scores = torch.tensor([[9.0, 0.5, 0.7, 0.5, 0.1], [9.0, 0.2, 0.2, 0.2, 0.2]])  # the padding's 9 is no item's
    model = SimpleNamespace(eval=lambda: None, full_sort_predict=lambda _rows: scores)
    rows = {"user_id": torch.tensor([2, 1]), "item_id": torch.tensor([3, 1])}

    class Loader(list[Any]):
        dataset = SimpleNamespace(field2id_token={"user_id": ["[PAD]", "u0", "u1"]})

    assert worker.ranks(model, Loader([(rows, None)])) == [(1, 1, 2), (0, 0, 4)]
    scores[0, 4] = torch.nan
    with pytest.raises(SystemExit, match="not finite"):
        worker.ranks(model, Loader([(rows, None)]))


def test_ranks_of_recbole_become_our_metrics() -> None:
    data = shuffled(sequences(num_users=3))
    found = rank_table(data, TEST, [(2, 0, 1), (0, 4, 1), (1, 1, 2)])
    assert found.target.tolist() == [data.sequence(user)[-1] for user in range(3)]
    assert found.user.tolist() == list(data.user_ids)
    np.testing.assert_allclose(per_user(found)["mrr"], [1 / 5, (1 / 2 + 1 / 3) / 2, 1])


def test_what_is_finished_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, calls = sequences(num_users=3), []
    rows = [(user, user, 1) for user in range(3)]

    def train(work: Path) -> tuple[tuple[UserRanks, ...], int]:
        calls.append(work.is_dir())
        return (rank_table(data, VALIDATION, rows), rank_table(data, TEST, rows)), 4

    first, second = (kept(tmp_path / "1", "one", train) for _ in range(2))
    assert calls == [True]
    np.testing.assert_array_equal(first.rank, second.rank)
    assert {path.name for path in (tmp_path / "1").iterdir()} == {VALIDATION.file, TEST.file}
    assert capsys.readouterr().out.startswith("one: validation MRR 0.6111 in epoch 4")


def comparison(folder: Path, **changed: Any) -> Comparison:
    config = config_of("gru4rec", width=8, hidden=8, **changed)
    return Comparison("gru4rec", config, sequences(num_users=5), 16, folder)


def stand_in(folder: Path, script: str) -> Path:
    """An environment that counts as installed, whose interpreter is a shell script."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/python").chmod(0o755)
    (folder / "installed.txt").write_text(REQUIREMENTS.read_text("utf-8"))
    return folder


def test_both_sides_rank_the_same_users(tmp_path: Path) -> None:
    one = comparison(tmp_path / "kept", epochs=2)
    rows = [[user, 3, 1] for user in range(5)]
    said = json.dumps({"validation": rows, "test": rows, "best_epoch": 1})
    environment = stand_in(tmp_path / "recbole", f"echo '{said}' > ranks.json")
    found = verdict("gru4rec", [ours(one, 1)], [recbole(one, 1, environment)])
    assert found.recbole == pytest.approx((0.25,))
    assert found.difference.users == 5


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    environment = stand_in(tmp_path / "recbole", "echo first >&2; echo no memory >&2; exit 3")
    with pytest.raises(UserError, match=r"gru4rec seed 1 RecBole ended with status 3: no memory \(more in .*\.log\)"):
        recbole(comparison(tmp_path / "kept"), 1, environment)


def with_reciprocals(data: SequenceData, places: Sequence[int]) -> UserRanks:
    return rank_table(data, TEST, [(user, place - 1, 1) for user, place in enumerate(places)])


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([2, 4] * 20, "holds"),  # the very ranks of the other side
        ([1, 3] * 20, "holds"),
        ([4, 8] * 20, "does not hold"),
        ([1, 30, 30, 30] * 5 + [2, 4] * 10, "open"),  # a little worse on average, better for some
    ],
)
def test_the_verdict_is_that_of_the_interval(places: list[int], told: str) -> None:
    data = sequences(num_users=40)
    theirs = with_reciprocals(data, [2, 4] * 20)
    found = verdict("sasrec", [with_reciprocals(data, places)] * 2, [theirs] * 2)
    assert found.recbole == pytest.approx((0.375, 0.375))
    assert found.margin == pytest.approx(-0.05 * 0.375)
    assert found.difference.mean == pytest.approx(np.mean([1 / place for place in places]) - 0.375)
    assert (found.told, found.holds) == (told, told == "holds")
    assert verdicts_table([found], "t").row_count == 1


def test_seeds_are_averaged_before_users_are_compared() -> None:
    data = sequences(num_users=4)
    one, other = with_reciprocals(data, [1, 1, 2, 2]), with_reciprocals(data, [2, 2, 1, 1])
    found: Verdict = verdict("fdsa", [one, other], [other, one])
    assert (found.difference.low, found.difference.high) == (0, 0)
    with pytest.raises(UserError, match="do not compare"):
        verdict("fdsa", [one], [rank_table(data, VALIDATION, [(user, 0, 1) for user in range(4)])])


def test_an_error_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path))
    assert paths.home() == tmp_path
    assert main(["--data", "nothing-here"]) == 2
    assert "nothing-here" in capsys.readouterr().err
    for wrong in (["--user-share", "0"], ["--seeds", "0"], ["--models", "mf"]):
        with pytest.raises(SystemExit):
            main(["--data", "any", *wrong])
