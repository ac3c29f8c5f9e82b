"""M_cf trained beforehand: what it learns, what it never sees, and that nothing moves it afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import sequences, tiny_config, tiny_task
from trainers import collaborative_pretraining
from trainers.collaborative_pretraining import pretrain, unseen
from trainers.config import TrainingConfig
from trainers.finetune import finetune, load_best
from trainers.model.collaborative import CollaborativeModel, build_collaborative
from trainers.task import build_model

CONFIG = TrainingConfig(collaborative_epochs=60, collaborative_learning_rate=2e-2, weight_decay=0.0)
DESIGN = Architecture.parse("000-000")


def trained(kind: str, seed: int = 0, data=None) -> CollaborativeModel:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    data = data or sequences()
    model = build_collaborative(kind, data.num_users, data.num_items, 8)  # type: ignore[arg-type]
    pretrain(model, data, CONFIG, seed)
    return model


@pytest.mark.parametrize("kind", ["ncf", "mf"])
def test_it_ranks_what_a_user_took_above_the_rest(kind: str) -> None:
    data, model = sequences(), trained(kind)
    scores = model.score_all(torch.arange(data.num_users)).detach().numpy()
    areas = []
    for user in range(data.num_users):
        taken = np.isin(np.arange(data.num_items), data.training(user))
        areas.append((scores[user][taken][:, None] > scores[user][~taken]).mean())
    assert np.mean(areas) > 0.95, "area under the curve; chance is one half"
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["ncf", "mf"])
def test_held_out_items_never_reach_it(kind: str) -> None:
    """Another validation or test item changes no bit of it; another seed does."""
    data = sequences()
    items = data.items.copy()
    for end in data.offsets[1:]:
        items[end - 2 : end] = (items[end - 2 : end] + 11) % data.num_items
    first, second, other = trained(kind), trained(kind, data=replace(data, items=items)), trained(kind, seed=1)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(left.equal(right) for left, right in pairs)
    pairs = zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    assert not all(left.equal(right) for left, right in pairs)


def test_negatives_are_uniform_among_what_the_user_did_not_take() -> None:
    known = np.array([0, 1, 2, 9, 10, 11, 12])  # of 5 items: user 0 has taken 0, 1 and 2; user 1 item 4; user 2 0, 1, 2
    users = np.repeat([0, 1, 2], 3000)
    drawn = unseen(np.random.default_rng(0), users, 2, 5, known)
    for user, allowed in ((0, {3, 4}), (1, {0, 1, 2, 3}), (2, {3, 4})):
        counts = np.bincount(drawn[users == user].ravel(), minlength=5)
        assert set(np.flatnonzero(counts)) == allowed
        share = counts[sorted(allowed)] / counts.sum()
        assert share == pytest.approx(1 / len(allowed), abs=0.02)


def test_who_has_taken_everything_is_no_lesson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collaborative_pretraining, "PAIRS_AT_ONCE", 7)
    data = sequences()
    everything = np.arange(data.num_items, dtype=np.int32)
    items = np.concatenate([data.items, everything, everything[:2]])
    offsets = np.append(data.offsets, len(items))
    pretrain(
        build_collaborative("mf", data.num_users + 1, data.num_items, 4),
        replace(data, items=items, offsets=offsets, user_ids=(*data.user_ids, "collector")),
        replace(CONFIG, collaborative_epochs=1),
        0,
    )


def test_a_frozen_model_is_trained_beforehand_and_then_stays(tmp_path: Path) -> None:
    task = tiny_task()
    config = tiny_config({"collaborative_training": "frozen"}, collaborative_epochs=3)
    fresh = build_model(config, DESIGN, task, 0)
    result = finetune(config, DESIGN, task, seed=0, folder=tmp_path, on_epoch=lambda report: _without_cf(report.losses))
    assert result.epochs_run == 3
    after = load_best(config, DESIGN, task, seed=0, folder=tmp_path)
    untrained = build_model(tiny_config(), DESIGN, task, 0)
    for name, value in fresh.state_dict().items():
        if name.startswith("collaborative."):
            assert value.equal(after.state_dict()[name]), name
            assert not value.equal(untrained.state_dict()[name]), name


def _without_cf(losses: object) -> bool:
    assert "collaborative" not in losses  # type: ignore[operator]
    return True
