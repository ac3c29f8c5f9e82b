"""Training of every baseline: it learns, ends at a plateau, resumes exactly and sees no held-out item."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.trainers.tiny_task import sequences
from trainers import checkpoint
from trainers.baselines.baseline import Baseline
from trainers.baselines.build import build_baseline
from trainers.baselines.config import (
    BaselineConfig,
    BaselineName,
    BaselinesConfig,
    Bert4RecConfig,
    FdsaConfig,
    Gru4RecConfig,
    MfConfig,
    NcfConfig,
    P5Config,
    RecFormerConfig,
    SasRecConfig,
    UniSRecConfig,
)
from trainers.baselines.rows import to_rows
from trainers.baselines.text_body import text_body
from trainers.baselines.train import load_baseline, rank_users, train_baseline
from trainers.data.sequence_data import Catalogue, SequenceData
from trainers.epochs import BEST, LAST, NotFiniteError
from trainers.metrics import summarise
from trainers.ranks import Setting
from trainers.reports import EpochReport, FinetuneResult

SMALL: dict[str, BaselineConfig] = {
    "gru4rec": Gru4RecConfig(width=16, hidden=16, learning_rate=1e-2),
    "sasrec": SasRecConfig(width=16, dropout=0.1, learning_rate=5e-3),
    "sasrec-gbce": SasRecConfig(width=16, dropout=0.1, learning_rate=5e-3, item_loss="gbce", sampled_items=12),
    "bert4rec": Bert4RecConfig(width=16, dropout=0.1, learning_rate=5e-3),
    "fdsa": FdsaConfig(width=16, dropout=0.1, learning_rate=5e-3, least_items=1),
    "unisrec": UniSRecConfig(width=16, dropout=0.1, learning_rate=5e-3, experts=2),
    "recformer": RecFormerConfig(
        weights=None,
        tokenizer="tiny-random",
        width=32,
        layers=2,
        temperature=0.1,
        learning_rate=3e-3,
        stage_patience=1000,
    ),
    "p5": P5Config(width=32, layers=1, learning_rate=5e-3),
    "mf": MfConfig(dim=16, learning_rate=2e-2),
    "ncf": NcfConfig(dim=16, learning_rate=2e-2),
}
ENCODERS = TemporaryDirectory()
"""Holds the tokenizer that is made up here"""
SEQUENTIAL = [name for name in SMALL if name not in ("mf", "ncf")]


def built(config: BaselineConfig, data: SequenceData) -> Baseline[Any]:
    """Text vectors by an encoder that is asked for by name, and texts, each of which tells the items apart."""
    letters = tuple(chr(ord("A") + number) for number in range(data.num_items))
    vectors = np.random.default_rng(9).normal(size=(data.num_items, 12)).astype(np.float32)
    return build_baseline(
        config,
        data.catalogue,
        data.num_users,
        lambda encoder, reading: {("all-minilm-l6-v2", "mean"): vectors}[encoder, reading],
        lambda asked: text_body(asked, Catalogue(letters, letters, letters), (), Path(ENCODERS.name)),
    )


def train(
    config: BaselineConfig,
    data: SequenceData,
    folder: Path,
    *,
    seed: int = 0,
    stop_after: int | None = None,
    recorded: int | None = None,
) -> tuple[FinetuneResult, bool, list[EpochReport]]:
    reports: list[EpochReport] = []

    def on_epoch(report: EpochReport) -> bool:
        reports.append(report)
        return stop_after is None or len(reports) < stop_after

    def build() -> Baseline[Any]:
        return built(config, data)

    result = train_baseline(config, build, data, seed=seed, folder=folder, on_epoch=on_epoch, recorded=recorded)
    return result, result.has_ended, reports


def test_every_model_has_a_case_here() -> None:
    names = [field.name for field in fields(BaselinesConfig)]
    assert tuple(names) == get_args(BaselineName)
    assert {type(config) for config in SMALL.values()} == {type(getattr(BaselinesConfig(), name)) for name in names}


def last_model(config: BaselineConfig, data: SequenceData, folder: Path) -> Any:
    """After the last epoch, not the best one."""
    model = built(config, data)
    checkpoint.load_training(folder / LAST, model, torch.optim.AdamW(model.parameters()))
    return model.eval()


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_it_learns_twenty_users_by_heart(name: str, tmp_path: Path) -> None:
    # RecFormer has one target of a user in an epoch where the others have all.
    epochs = 300 if name == "recformer" else 150
    data, config = sequences(num_users=20), replace(SMALL[name], epochs=epochs, patience=epochs, batch_size=10)
    train(config, data, tmp_path)
    kept = [data.training(user) for user in range(data.num_users) if len(data.training(user)) > 1]
    with torch.no_grad():
        scores = last_model(config, data, tmp_path).scores(to_rows([row[:-1] for row in kept], data.num_items))
    if name == "recformer":  # to it a history of one item is that item
        for row, read in zip(scores, kept, strict=True):
            row[torch.from_numpy(read[:-1].astype(np.int64))] = -torch.inf
    targets = torch.tensor([int(row[-1]) for row in kept])
    above = (scores > scores.gather(1, targets[:, None])).sum(dim=1)
    assert (1 / (1 + above)).mean() > 0.9


@pytest.mark.parametrize("name", ["mf", "ncf"])
def test_a_collaborative_model_ranks_what_a_user_took_first(name: str, tmp_path: Path) -> None:
    data, config = sequences(num_users=20), replace(SMALL[name], epochs=150, patience=150, batch_size=40)
    train(config, data, tmp_path)
    scores = last_model(config, data, tmp_path).score_users(data, np.arange(20), "test").detach()
    areas = []
    for user in range(20):
        taken = np.isin(np.arange(data.num_items), data.training(user))
        areas.append(float((scores[user][taken][:, None] > scores[user][~taken]).double().mean()))
    assert np.mean(areas) > 0.97


@pytest.mark.parametrize("name", list(SMALL))
def test_a_stopped_training_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    data, config = sequences(), replace(SMALL[name], epochs=5, patience=5)
    whole, ended, reports = train(config, data, tmp_path / "whole")
    assert ended
    _, ended, first = train(config, data, tmp_path / "parts", stop_after=2)
    assert not ended
    resumed, ended, later = train(config, data, tmp_path / "parts", recorded=1)
    assert ended
    assert resumed == whole
    assert [report.epoch for report in later] == [2, 3, 4, 5], "what was finished and not recorded comes first"
    assert [report.losses for report in (*first[:1], *later)] == [report.losses for report in reports]
    one, other = (checkpoint.read(tmp_path / folder / LAST)[0] for folder in ("whole", "parts"))
    assert all(one[key].equal(other[key]) for key in one)
    with pytest.raises(ValueError, match="another model, seed or configuration"):
        train(config, data, tmp_path / "parts", seed=1)


@pytest.mark.parametrize("name", list(SMALL))
def test_held_out_items_never_reach_its_weights(name: str, tmp_path: Path) -> None:
    data, config = sequences(), replace(SMALL[name], epochs=2)
    items = data.items.copy()
    for end in data.offsets[1:]:
        items[end - 2 : end] = (items[end - 2 : end] + 11) % data.num_items
    train(config, data, tmp_path / "one")
    train(config, replace(data, items=items), tmp_path / "other")
    one, other = (checkpoint.read(tmp_path / folder / LAST)[0] for folder in ("one", "other"))
    assert all(one[key].equal(other[key]) for key in one)


def test_it_ends_at_the_plateau_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    data, config = sequences(), replace(SMALL["sasrec"], epochs=200, patience=3)
    result, ended, reports = train(config, data, tmp_path)
    assert ended
    assert result.epochs_run < 200
    assert result.epochs_run - result.best_epoch == 3
    curve = [report.validation.mrr for report in reports]
    assert max(curve) == curve[result.best_epoch - 1] == result.mrr
    model = load_baseline(lambda: built(config, data), tmp_path)
    (ranks,) = rank_users(model, data, [Setting("validation")])
    assert summarise(ranks).mrr == pytest.approx(result.mrr)
    assert checkpoint.read(tmp_path / BEST)[1]["epoch"] == result.best_epoch


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        train(replace(SMALL["sasrec"], learning_rate=1e30, batch_size=4), sequences(), tmp_path)
