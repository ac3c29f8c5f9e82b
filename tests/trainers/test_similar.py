"""Nearest items against cosines in numpy, one row at a time, and all that is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.oracles.cases import random_case, small_model
from tests.oracles.literal_mixrec import align_state
from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.baselines.test_package import packed
from tests.trainers.model.test_mixrec_equals_literal import fast_model, layout_of
from tests.trainers.tiny_package import NUM_ITEMS, make_package
from trainers.baselines.package import read_baseline_package
from trainers.errors import UserError
from trainers.package import Package, read_package
from trainers.similar import align_states, similar_to_item, similar_to_text

IDS = [f"i{number}" for number in range(NUM_ITEMS)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(make_package(tmp_path_factory.mktemp("made"), epochs=4).package)


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A model that sees nothing but the text of an item."""
    made = make_package(tmp_path_factory.mktemp("text"), model={"collaborative_columns": "none"})
    return read_package(made.package)


def states(package: Package) -> NDArray[np.float32]:
    """[I, d] [ALIGN] state of each item, read alone, less their mean."""
    with torch.inference_mode():
        one_by_one = [package.model.encode(package.layout.alignments([item]))[0] for item in range(NUM_ITEMS)]
    found = torch.stack(one_by_one).numpy()
    return found - found.mean(axis=0)


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.sum(one * other) / (np.sqrt(np.sum(one**2)) * np.sqrt(np.sum(other**2))))


def ranked(cosines: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(cosines.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("align_sees_item_column", [False, True])
def test_the_vectors_are_the_literal_align_states(family: Family, align_sees_item_column: bool) -> None:
    case = random_case(family, "011010", model=small_model(align_sees_item_column=align_sees_item_column))
    items = [3, 0, 8, 5]
    found = align_states(fast_model(case).eval(), layout_of(case), items)
    for row, item in enumerate(items):
        expected = align_state(case.literal, item).detach()
        assert torch.allclose(found[row], expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("item", ["i0", "i7", "i15"])
def test_the_nearest_items_are_those_of_a_numpy_ranking(package: Package, item: str) -> None:
    of_items = states(package)
    this = of_items[IDS.index(item)]
    expected = ranked({other: cosine(this, of_items[IDS.index(other)]) for other in IDS if other != item})
    found = similar_to_item(package, item, k=5)
    assert [one.item for one in found] == [other for other, _ in expected[:5]]
    assert [one.cosine for one in found] == pytest.approx([value for _, value in expected[:5]], abs=1e-5)
    assert [one.rank for one in found] == [1, 2, 3, 4, 5]
    assert [one.title for one in found] == [f"Thing {one.item[1:]}" for one in found]


def test_nearness_is_mutual(package: Package) -> None:
    there = {one.item: one.cosine for one in similar_to_item(package, "i3", k=NUM_ITEMS)}
    assert sorted(there) == sorted(set(IDS) - {"i3"}), "itself left out, all others there"
    for other in ("i4", "i9"):
        back = {one.item: one.cosine for one in similar_to_item(package, other, k=NUM_ITEMS)}
        assert back["i3"] == pytest.approx(there[other], abs=1e-6)


def test_an_item_is_nearest_to_its_own_title(text_only: Package) -> None:
    """Even items have a title and nothing else, and this model sees nothing but the text."""
    for item in ("i2", "i8"):
        found = similar_to_text(text_only, f" Thing {item[1:]}", k=NUM_ITEMS)
        assert found[0].item == item
        assert found[0].cosine == pytest.approx(1, abs=1e-5)
        others = [(one.item, pytest.approx(one.cosine, abs=1e-5)) for one in found[1:]]
        assert [(one.item, one.cosine) for one in similar_to_item(text_only, item, k=NUM_ITEMS)] == others


def test_what_cannot_be_read_is_refused(package: Package) -> None:
    with pytest.raises(UserError, match="item 'nope' is not among"):
        similar_to_item(package, "nope")
    with pytest.raises(UserError, match="a text is empty"):
        similar_to_text(package, " ")


def test_models_without_trained_vectors_are_refused(package: Package, tmp_path: Path) -> None:
    packed("mf", tmp_path)
    baseline = read_baseline_package(tmp_path / "package")
    with pytest.raises(UserError, match="only MixRec encodes items by their text"):
        similar_to_item(baseline, baseline.catalogue.ids[0])

    def trained(**changes: float) -> Package:
        config = package.config
        return replace(package, config=replace(config, training=replace(config.training, **changes)))

    without = trained(lambda_contrastive=0)
    assert len(similar_to_item(without, "i1", k=3)) == 3
    with pytest.raises(UserError, match="neither alignment nor contrastive loss"):
        similar_to_text(trained(lambda_contrastive=0, lambda_align=0), "a lamp")
