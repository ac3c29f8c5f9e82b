"""A baseline's package: written, read, asked for recommendations, and what is wrong with a broken one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.trainers.baselines.test_train import SMALL, built, train
from tests.trainers.tiny_task import sequences
from trainers.baselines.config import BaselineName, BaselinesConfig
from trainers.baselines.package import (
    is_baseline_package,
    read_baseline_package,
    started_from,
    write_baseline_package,
)
from trainers.baselines.train import load_baseline
from trainers.errors import UserError
from trainers.recommend import Query, recommend

NAMES = get_args(BaselineName)
SETTINGS = BaselinesConfig(**{name: SMALL[name] for name in NAMES})  # type: ignore[arg-type]


def packed(name: Any, folder: Path, epochs: int = 2) -> Any:
    data = sequences()
    train(replace(SMALL[name], epochs=epochs, patience=epochs), data, folder / "training")
    model = load_baseline(lambda: built(SMALL[name], data), folder / "training")
    write_baseline_package(folder / "package", name, SETTINGS, model, data.catalogue, data.fingerprint)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_package_scores_like_the_model_that_was_trained(name: BaselineName, tmp_path: Path) -> None:
    model, history = packed(name, tmp_path), np.array([3, 4, 5], dtype=np.int32)
    assert is_baseline_package(tmp_path / "package")
    package = read_baseline_package(tmp_path / "package")
    torch.testing.assert_close(package.score([history])[0], model.score_history(history).detach(), atol=1e-4, rtol=1e-4)
    assert started_from(tmp_path / "package") == package.model.started_from == model.started_from
    texts = ", texts by all-minilm-l6-v2" if name == "unisrec" else ""
    assert model.started_from == f"random weights{texts}"
    ids = package.catalogue.ids
    found = recommend(package, Query([ids[3], ids[4], ids[5]], k=6, exclude_seen=True))
    assert len(found) == 6
    assert {one.item for one in found}.isdisjoint(ids[3:6])
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    with pytest.raises(UserError, match="knows items alone"):
        recommend(package, Query(["a ball"], texts=True))


@pytest.mark.parametrize("name", ["mf", "ncf"])
def test_a_new_user_is_learned_from_the_history(name: str, tmp_path: Path) -> None:
    """Items taken score above the others, and the known users' model is left as it was."""
    model, data = packed(name, tmp_path, epochs=60), sequences()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    areas = []
    for user in range(8):
        items = data.training(user)
        scores = model.score_history(items)
        taken = torch.from_numpy(np.isin(np.arange(data.num_items), items))
        areas.append(float((scores[taken][:, None] > scores[~taken]).double().mean()))
        assert scores.equal(model.score_history(items)), "the same each time"
    assert np.mean(areas) > 0.9
    assert all(before[key].equal(value) for key, value in model.state_dict().items())


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    packed("unisrec", tmp_path)
    package = tmp_path / "package"
    texts = (package / "texts.safetensors").rename(tmp_path / "texts")
    with pytest.raises(UserError, match=r"texts\.safetensors with the vectors of all-minilm"):
        read_baseline_package(package)
    texts.rename(package / "texts.safetensors")
    read_baseline_package(package)
    (package / "catalogue.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"catalogue\.parquet"):
        read_baseline_package(package)
    told = json.loads((package / "baseline.json").read_text())
    (package / "baseline.json").write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(UserError, match="format 99, expected 1"):
        read_baseline_package(package)
    assert not is_baseline_package(tmp_path)
    assert started_from(tmp_path) is None
