"""A training on all users that begins with the weights of one on a share of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import sequences, tiny_config, tiny_task
from trainers.data.users import sample_users
from trainers.epochs import BEST, LAST
from trainers.errors import UserError
from trainers.finetune import finetune
from trainers.start import Start
from trainers.task import build_model

DESIGN = Architecture.parse("010-110")
USERS = sample_users(24, 0.5, 3)


@pytest.fixture
def start(tmp_path: Path, columns: dict[str, str]) -> Start:
    """Of a training on half of the users."""
    some = tiny_task(sequences().select_users(USERS))
    finetune(tiny_config(columns), DESIGN, some, seed=0, folder=tmp_path / "some", on_epoch=lambda _: True)
    return Start(tmp_path / "some" / BEST, USERS)


COLUMNS = [
    {"collaborative_columns": "user+item", "collaborative_model": "ncf"},
    {"collaborative_columns": "user+item", "collaborative_model": "mf"},
    {"collaborative_columns": "none"},
]


@pytest.mark.parametrize("columns", COLUMNS)
def test_every_weight_is_taken_over_and_new_users_begin_anew(start: Start, columns: dict[str, str]) -> None:
    config, task = tiny_config(columns), tiny_task()
    fresh = build_model(config, DESIGN, task, seed=1).state_dict()
    model = build_model(config, DESIGN, task, seed=1)
    start.give_to(model)
    trained = load_file(start.weights)
    new = np.setdiff1d(np.arange(24), USERS)
    for name, value in model.state_dict().items():
        if name.startswith("collaborative.user"):
            assert torch.equal(value[USERS], trained[name]), name
            assert torch.equal(value[new], fresh[name][new]), name
        else:
            assert torch.equal(value, trained[name]), name


@pytest.mark.parametrize("columns", COLUMNS[:1])
def test_the_training_begins_there_and_is_another_one(start: Start, columns: dict[str, str], tmp_path: Path) -> None:
    still = tiny_config(columns, epochs=1, learning_rate=1e-12, collaborative_learning_rate=1e-12)
    folder = tmp_path / "all"
    finetune(still, DESIGN, tiny_task(), seed=1, folder=folder, on_epoch=lambda _: True, start=start)
    trained, after = load_file(start.weights), load_file(folder / LAST)
    for name, value in trained.items():
        if not name.startswith("collaborative.user"):
            torch.testing.assert_close(after[f"model/{name}"], value, atol=1e-8, rtol=0)
    with pytest.raises(ValueError, match="another design"):
        finetune(still, DESIGN, tiny_task(), seed=1, folder=folder, on_epoch=lambda _: True)


@pytest.mark.parametrize("columns", COLUMNS[:1])
def test_weights_of_another_model_are_refused(start: Start, columns: dict[str, str]) -> None:
    model = build_model(tiny_config({**columns, "bottleneck": 5}), DESIGN, tiny_task(), seed=1)
    with pytest.raises(UserError, match=r"is of another model: it has no layers\.0"):
        start.give_to(model)
    with pytest.raises(UserError, match="no weights to begin with"):
        _ = Start(start.weights.with_name("none"), USERS).fingerprint
