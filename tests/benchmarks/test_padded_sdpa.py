"""The padded MixRec that the benchmarks compare with computes what `MixRec` computes, in float64 to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.padded_sdpa import PaddedMixRec, collate_padded
from search_spaces.architecture import Architecture
from tests.oracles.cases import Case, gradients, random_case, small_model
from tests.trainers.model.test_mixrec_equals_literal import fast_model, layout_of
from trainers.data.batches import collate
from trainers.losses import weighted_loss

TOLERANCE = 1e-9


def assert_equal_to_ours(case: Case) -> None:
    model, layout = fast_model(case), layout_of(case)
    model.centre.copy_(torch.linspace(-1, 1, len(model.centre)))
    model.spread.fill_(1.5)
    assert case.architecture is not None
    padded = PaddedMixRec(model, case.backbone, case.architecture, case.training.temperature)
    batch, padded_batch = collate(case.step, layout), collate_padded(case.step, layout)
    assert batch.counts == padded_batch.counts
    ours, theirs = model(batch), padded(padded_batch)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert abs(value.item() - theirs[name].item()) < TOLERANCE, name

    own = dict(model.named_parameters())
    expected = gradients(weighted_loss(ours, batch.counts, case.training), own)
    got = gradients(weighted_loss(theirs, batch.counts, case.training), own)
    for name in own:
        difference = (got[name] - expected[name]).abs().max().item()
        assert difference < TOLERANCE, f"gradient of {name} differs by {difference}"
    assert sum(bool(value.any()) for value in got.values()) > 0.9 * len(own), "the case must exercise the parameters"


@pytest.mark.parametrize("bits", ["000000", "111111", "010101", "101010", "001110", "110001"])
def test_designs(bits: str) -> None:
    assert_equal_to_ours(random_case("llama", bits, model=small_model(collaborative_columns="user+item")))


OPTIONS = {
    **{f"columns-{c}": {"collaborative_columns": c} for c in ("none", "item", "user", "user+item")},
    "matrix-factorisation": {"collaborative_model": "mf"},
    "gelu": {"activation": "gelu"},
    "bos": {"leading_bos": True, "collaborative_columns": "user+item"},
    "align-without-column": {"align_sees_item_column": False},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_options(option: str, seed: int) -> None:
    model = small_model(**OPTIONS[option])
    assert_equal_to_ours(random_case("llama", "011010100", model=model, layers=3, rows=4, seed=seed))


def test_unknown_items_have_no_column_and_padding_is_there() -> None:
    case = random_case("llama", "010101")
    layout = layout_of(case)
    hidden = np.zeros_like(layout.known_items)
    object.__setattr__(layout, "known_items", hidden)
    batch = collate_padded(case.step, layout)
    rows = batch.histories
    length = rows.tokens.shape[1]
    assert not rows.sees[..., length:].any()
    assert batch.num_tokens > batch.terms.num_tokens, "rows of unequal length"


def test_what_is_no_network_of_damoe_layers_is_refused() -> None:
    case = random_case("llama", model=small_model(kind="mixrec_base"))
    with pytest.raises(ValueError, match="DAMoE"):
        PaddedMixRec(fast_model(case), case.backbone, Architecture.parse("000-000"), 1.0)
