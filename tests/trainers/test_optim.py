"""AdamW groups, and the schedule against its formula."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.model.mixrec import MixRec
from trainers.optim import build_optimizer, set_rates, warmup_cosine
from trainers.task import build_model

DESIGN = Architecture.parse("010-110")
RATE, CF_RATE, ITEM_RATE, DECAY = 3e-3, 7e-4, 9e-4, 0.05


def model_of(**model: object) -> MixRec:
    return build_model(tiny_config(model), DESIGN, tiny_task(), seed=0)


def settings_of(model: MixRec) -> dict[str, tuple[float, float]]:
    """Parameter name -> (peak rate, weight decay)."""
    rates = {"collaborative_learning_rate": CF_RATE, "projection_learning_rate": ITEM_RATE}
    training = tiny_config(learning_rate=RATE, weight_decay=DECAY, **rates).training
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in build_optimizer(model, training).param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in found, "in one group only"
            found[names[id(parameter)]] = (group["peak"], group["weight_decay"])
    return found


KINDS = {"causal_expert": "lora", "recommendation_adapter": "ia3"}


@pytest.mark.parametrize("columns", ["user+item", "none"])
@pytest.mark.parametrize(("form", "kinds"), [("free", {}), ("text+free", {}), ("free", KINDS)])
def test_every_trained_weight_is_in_the_group_it_belongs_to(columns: str, form: str, kinds: dict[str, str]) -> None:
    model = model_of(collaborative_columns=columns, item_projection_form=form, **kinds)
    found = settings_of(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, (rate, decay) in found.items():
        if name.startswith("collaborative."):
            assert (rate, decay) == (CF_RATE, DECAY), name
        elif name.startswith("item_projection."):
            assert (rate, decay) == (ITEM_RATE, 0.0 if name.endswith("bias") else DECAY), name
        elif name.endswith(("bias", "recommendation_adapter.scale")) or name == "special_tokens":
            assert (rate, decay) == (RATE, 0.0), name
        else:
            assert name.endswith("weight")
            assert (rate, decay) == (RATE, DECAY), name
    assert any(name.startswith("collaborative.") for name in found) == (columns != "none")


def test_the_frozen_backbone_is_in_no_group() -> None:
    model = model_of()
    trained = {id(p) for group in build_optimizer(model, tiny_config().training).param_groups for p in group["params"]}
    assert not trained & {id(parameter) for parameter in model.backbone.parameters()}
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())


def test_the_schedule_of_a_hundred_steps() -> None:
    """Six steps up, then a half cosine over the other 94."""
    rising = [(step + 1) / 6 for step in range(6)]
    falling = [(1 + math.cos(math.pi * step / 94)) / 2 for step in range(94)]
    assert [warmup_cosine(step, 100, 0.06) for step in range(100)] == pytest.approx([*rising, *falling])
    assert warmup_cosine(5, 100, 0.06) == warmup_cosine(6, 100, 0.06) == 1


@given(total=st.integers(1, 500), warmup=st.floats(0, 0.99))
def test_the_schedule_rises_to_the_peak_then_falls_and_never_stands_still(total: int, warmup: float) -> None:
    factors = [warmup_cosine(step, total, warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == 1


def test_each_group_follows_the_schedule_from_its_own_peak() -> None:
    training = tiny_config(learning_rate=RATE, collaborative_learning_rate=CF_RATE).training
    optimizer = build_optimizer(model_of(), training)
    for step in (0, 3, 6, 50, 99):
        set_rates(optimizer, training, step, 100)
        factor = warmup_cosine(step, 100, training.warmup)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [RATE * factor, RATE * factor, CF_RATE * factor]
        )
