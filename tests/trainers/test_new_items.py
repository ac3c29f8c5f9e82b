"""Items by their text alone: against sums over the catalogue, one item at a time, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainers.baselines.test_package import packed
from tests.trainers.tiny_package import NUM_ITEMS, make_package
from trainers.baselines.package import read_baseline_package
from trainers.errors import UserError
from trainers.new_items import as_mixtures, rank_new
from trainers.package import Package, read_package
from trainers.recommend import Query, recommend

HISTORY = ["i2", "i4", "i0", "i6", "i8", "i2"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A model that sees nothing but the text of an item."""
    made = make_package(tmp_path_factory.mktemp("text"), model={"collaborative_columns": "none"})
    return read_package(made.package)


@pytest.mark.parametrize("texts", [False, True])
def test_a_text_is_worth_what_it_could_be_of(package: Package, texts: bool) -> None:
    """The texts of known items have the `[ALIGN]` states of these."""
    new = [f"Thing {number}" for number in (6, 0, 12, 4)]
    given = [f"Thing {item[1:]}" for item in HISTORY] if texts else HISTORY
    after = {one.item: one.score for one in recommend(package, Query(given, texts, k=NUM_ITEMS))}
    expected = {}
    for text in new:
        item = int(text.split()[1])
        with torch.inference_mode():
            state = package.model.encode(package.layout.alignments([item]))
            could_be = package.model.item_logits(state)[0].double().softmax(dim=0).tolist()
        total = sum(could_be[other] * math.exp(after[f"i{other}"]) for other in range(NUM_ITEMS))
        expected[text] = math.log(total)
    found = rank_new(package, Query(given, texts), new)
    assert {one.text: one.score for one in found} == pytest.approx(expected, abs=1e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert [one.rank for one in found] == [1, 2, 3, 4]
    assert rank_new(package, Query(given, texts, k=2), new) == found[:2]


def test_a_text_that_is_recognised_has_the_score_of_its_item() -> None:
    after = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    sure = 1e3 * torch.eye(5)
    assert torch.allclose(as_mixtures(after, sure), after.log_softmax(dim=-1))
    unsure = torch.zeros(2, 5)
    assert torch.allclose(as_mixtures(after, unsure), torch.tensor(0.2).log().expand(3, 2)), "any item, so all alike"


def test_a_score_is_never_infinite() -> None:
    found = as_mixtures(torch.tensor([[0.0, -800.0]]), torch.tensor([[-800.0, 0.0]]))
    assert found.item() == pytest.approx(-800 + math.log(2), abs=1e-3)


def test_what_cannot_be_read_is_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="item 'nope' is not among"):
        rank_new(package, Query(["nope"]), ["a lamp"])
    with pytest.raises(UserError, match="a text is empty"):
        rank_new(package, Query(["i1"]), ["a lamp", ""])
    packed("mf", tmp_path)
    baseline = read_baseline_package(tmp_path / "package")
    with pytest.raises(UserError, match="only MixRec encodes items by their text"):
        rank_new(baseline, Query([baseline.catalogue.ids[0]]), ["a lamp"])
    training = replace(package.config.training, lambda_align=0.0)
    unaligned = replace(package, config=replace(package.config, training=training))
    with pytest.raises(UserError, match="trained without the alignment loss"):
        rank_new(unaligned, Query(["i1"]), ["a lamp"])
