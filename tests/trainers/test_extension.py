"""A model over a newer catalogue: what it keeps, against the model itself; what it adds, against sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.tiny_package import NEW_ITEMS, NUM_ITEMS, make_package, prepare_newer_shop
from trainers import checkpoint
from trainers.data.store_format import open_prepared
from trainers.extension import extended
from trainers.model.tables import tables_of_items, tables_of_users
from trainers.package import Package, read_package
from trainers.recommend import Query, recommend
from trainers.start import Start
from trainers.task import build_model, load_task

MODELS = [
    {"collaborative_columns": "user+item", "collaborative_model": "ncf"},
    {"collaborative_columns": "user+item", "collaborative_model": "mf", "item_projection_form": "text+free"},
    {"collaborative_columns": "none"},
]
HISTORY = ["i2", "i4", "i0", "i6"]


@pytest.fixture(scope="module", params=MODELS, ids=["ncf", "mf, text", "no M_cf"])
def root(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    root = tmp_path_factory.mktemp("shop")
    make_package(root, model=request.param)
    prepare_newer_shop(root, root / "newer")
    return root


@pytest.fixture(scope="module")
def package(root: Path) -> Package:
    return read_package(root / "package")


@pytest.fixture(scope="module")
def extension(root: Path, package: Package) -> Package:
    return extended(package, open_prepared(root / "newer"))


def test_the_items_of_before_keep_their_scores(package: Package, extension: Package) -> None:
    """What is new, and what is gone, changes the sum of the softmax alone."""
    before = {one.item: one.score for one in recommend(package, Query(HISTORY, k=99))}
    after = {one.item: one.score for one in recommend(extension, Query(HISTORY, k=99))}
    kept = sorted(before.keys() & after.keys())
    assert sorted(before.keys() - after.keys()) == ["i15"], "nobody takes it any more"
    assert sorted(after.keys() - before.keys()) == [f"i{NUM_ITEMS + number}" for number in range(NEW_ITEMS)]
    shift = before[kept[0]] - after[kept[0]]
    assert [before[item] - after[item] for item in kept] == pytest.approx([shift] * len(kept), abs=1e-4)
    assert sum(np.exp(list(after.values()))) == pytest.approx(1, abs=1e-4)


def test_a_new_item_begins_as_what_its_text_could_be_of(package: Package, extension: Package) -> None:
    had, has = package.model.state_dict(), extension.model.state_dict()
    for new in (f"i{NUM_ITEMS + number}" for number in range(NEW_ITEMS)):
        place = extension.catalogue.index[new]
        assert not extension.layout.known_items[place]
        alone = replace(extension.layout, align_column=False)
        with torch.inference_mode():
            state = package.model.encode(alone.alignments([place]))
            could_be = package.model.item_logits(state)[0].double().softmax(dim=0)
        for name in tables_of_items(package.model):
            expected = sum(float(p) * had[name][item].double() for item, p in enumerate(could_be))
            assert isinstance(expected, torch.Tensor)
            torch.testing.assert_close(has[name][place].double(), expected, atol=1e-5, rtol=1e-4)


def test_over_the_same_data_it_is_the_model_without_its_users(package: Package, root: Path) -> None:
    same = extended(package, open_prepared(root / "data"))
    before, after = package.model.state_dict(), same.model.state_dict()
    users = tables_of_users(package.model)
    assert all(len(after[name]) == 0 for name in users)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - set(users))
    assert np.array_equal(same.layout.known_items, package.layout.known_items)
    assert recommend(same, Query(HISTORY)) == recommend(package, Query(HISTORY))


def test_without_an_alignment_loss_a_new_item_begins_as_the_mean_of_all(package: Package, root: Path) -> None:
    training = replace(package.config.training, lambda_align=0.0)
    unaligned = replace(package, config=replace(package.config, training=training))
    extension = extended(unaligned, open_prepared(root / "newer"))
    place = extension.catalogue.index[f"i{NUM_ITEMS}"]
    weights = package.model.item_projection.weight
    torch.testing.assert_close(extension.model.item_projection.weight[place], weights.mean(dim=0))


def test_a_training_begins_with_it(package: Package, extension: Package, root: Path, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "start", extension.model.state_dict(), {})
    task = load_task(package.config, root / "newer", root / "backbones")
    model = build_model(package.config, package.architecture, task, seed=0)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    Start(tmp_path / "start", np.empty(0, dtype=np.int64)).give_to(model)
    users = tables_of_users(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name] if name in users else extension.model.state_dict()[name]), name
