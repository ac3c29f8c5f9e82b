"""What must hold whatever the weights: who sees whom, and that packing changes nothing (float64)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from tests.oracles.cases import PROMPT, force_gate
from tests.oracles.tiny_backbones import BOS_TOKEN, FAMILIES, VOCABULARY, Family, tiny_backbone
from trainers.config import AdapterKind, ModelConfig, TrainingConfig
from trainers.data.batches import Layout
from trainers.data.sequence_data import ItemTokens
from trainers.model.backbone import as_backbone
from trainers.model.mixrec import MixRec

NUM_USERS, NUM_ITEMS, LENGTHS = 4, 12, 4
UNKNOWN = NUM_ITEMS - 1
"""The item that M_cf has not seen."""
CAUSAL, CONTEXT = 0, 1
SAME = 1e-10
DIFFERENT = 1e-6

seeds = st.integers(0, 2**32 - 1)
histories = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=5)
batches = st.lists(st.tuples(histories, st.integers(-1, NUM_USERS - 1)), min_size=1, max_size=4)
columns = st.sampled_from(["none", "item", "user", "user+item"])
kinds = st.sampled_from(get_args(AdapterKind))
configs = st.builds(
    ModelConfig,
    bottleneck=st.just(3),
    collaborative_dim=st.just(6),
    kind=st.sampled_from(["mixrec", "mixrec", "mixrec", "mixrec_base"]),
    replacement_frequency=st.sampled_from([1, 1, 2]),
    activation=st.sampled_from(["none", "gelu"]),
    causal_expert=kinds,
    context_expert=kinds,
    recommendation_adapter=kinds,
    collaborative_model=st.sampled_from(["ncf", "mf"]),
    collaborative_columns=columns,
    leading_bos=st.booleans(),
)
checked = settings(max_examples=30, deadline=None, derandomize=True)
every_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def item_tokens() -> ItemTokens:
    """Items 0, 4, 8 have one token, items 1, 5, 9 two, and so on."""
    rng = np.random.default_rng(0)
    lengths = [1 + item % LENGTHS for item in range(NUM_ITEMS)]
    return ItemTokens(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rng.integers(6, VOCABULARY, size=sum(lengths)).astype(np.int32),
    )


def of_same_length(item: int) -> int:
    return (item + LENGTHS) % NUM_ITEMS


def random_model(family: Family, config: ModelConfig, seed: int, layers: int = 2) -> MixRec:
    """All weights N(0, .3), so that every path matters; the design is random as well."""
    generator = torch.Generator().manual_seed(seed)
    damoe = len(DamoeSpace(layers, config.replacement_frequency).damoe_layers)
    bits = torch.randint(2, (damoe, 3), generator=generator).tolist()
    design = Architecture.parse("-".join("".join(map(str, layer)) for layer in bits))
    model = MixRec(
        as_backbone(tiny_backbone(family, layers)),
        config,
        design,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        training=TrainingConfig(),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def layout_of(config: ModelConfig) -> Layout:
    known = np.arange(NUM_ITEMS) != UNKNOWN
    return Layout.of(config, item_tokens(), PROMPT, BOS_TOKEN, known)


@torch.no_grad()
def states(
    model: MixRec, rows: Sequence[Sequence[int]], users: Sequence[int], hidden: frozenset[int] = frozenset()
) -> list[Tensor]:
    """[n_u, d] `[SEQ]` states of each row, all rows in one batch."""
    packed = layout_of(model.config).histories(rows, users, hidden_user_columns=hidden)
    return list(model.encode(packed).split([len(row) for row in rows]))


def far(left: Tensor, right: Tensor) -> float:
    return (left - right).abs().max().item()


def force(model: MixRec, branch: int) -> None:
    force_gate(dict(model.named_parameters()), branch)


@every_family
@checked
@given(config=configs, seed=seeds, before=histories, after=histories, other=histories, user=st.integers(-1, 3))
def test_a_later_item_never_changes_an_earlier_state(
    family: Family, config: ModelConfig, seed: int, before: list[int], after: list[int], other: list[int], user: int
) -> None:
    model = random_model(family, config, seed)
    alone, first, second = states(model, [before, [*before, *after], [*before, *other]], [user] * 3)
    assert far(first[: len(before)], alone) < SAME
    assert far(second[: len(before)], alone) < SAME


@every_family
@checked
@given(config=configs, seed=seeds, batch=batches)
def test_users_packed_in_one_batch_are_as_users_alone(
    family: Family, config: ModelConfig, seed: int, batch: list[tuple[list[int], int]]
) -> None:
    model = random_model(family, config, seed)
    rows, users = [row for row, _ in batch], [user for _, user in batch]
    for packed, row, user in zip(states(model, rows, users), rows, users, strict=True):
        assert far(packed, states(model, [row], [user])[0]) < SAME


@every_family
@checked
@given(config=configs, seed=seeds, batch=batches)
def test_reading_the_last_item_only_gives_the_last_of_all_states(
    family: Family, config: ModelConfig, seed: int, batch: list[tuple[list[int], int]]
) -> None:
    model = random_model(family, config, seed)
    rows, users = [row for row, _ in batch], [user for _, user in batch]
    with torch.no_grad():
        last = model.encode(layout_of(config).histories(rows, users, read_newest=1))
    assert far(last, torch.stack([row[-1] for row in states(model, rows, users)])) < SAME


@every_family
@checked
@given(config=configs, seed=seeds, items=st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=5))
def test_alignments_packed_in_one_batch_are_as_alignments_alone(
    family: Family, config: ModelConfig, seed: int, items: list[int]
) -> None:
    model, layout = random_model(family, config, seed), layout_of(config)
    with torch.no_grad():
        packed = model.encode(layout.alignments(items))
        alone = torch.cat([model.encode(layout.alignments([item])) for item in items])
    assert far(packed, alone) < SAME


def context_only(family: Family, seed: int, layers: int, **config: Any) -> MixRec:
    """Every layer a DAMoE layer, and every gate at the context branch."""
    model = random_model(family, ModelConfig(bottleneck=3, collaborative_dim=6, **config), seed, layers)
    force(model, CONTEXT)
    return model


@every_family
@pytest.mark.parametrize("layers", [1, 2])
@checked
@given(seed=seeds, shown=columns, bos=st.booleans(), row=histories, place=st.integers(0, 4), user=st.integers(-1, 3))
def test_the_context_branch_never_sees_another_item(
    family: Family, layers: int, seed: int, shown: str, bos: bool, row: list[int], place: int, user: int
) -> None:
    """Every other item gives way to one with as many tokens, so that positions stay."""
    model = context_only(family, seed, layers, collaborative_columns=shown, leading_bos=bos)
    place %= len(row)
    others = [item if position == place else of_same_length(item) for position, item in enumerate(row)]
    as_it_is, changed = states(model, [row, others], [user, user])
    assert far(as_it_is[place], changed[place]) < SAME


@every_family
def test_only_the_causal_branch_sees_earlier_items(family: Family) -> None:
    """The oracle of the test above can tell: at the other branch the same change shows."""
    model = random_model(family, ModelConfig(bottleneck=3, collaborative_dim=6), 0, layers=1)
    force(model, CAUSAL)
    as_it_is, changed = states(model, [[1, 2], [of_same_length(1), 2]], [0, 0])
    assert far(as_it_is[1], changed[1]) > DIFFERENT


def move_vector(model: MixRec, kind: str, index: int) -> None:
    """Change M_cf's vector of one item or user and nothing else."""
    assert model.collaborative is not None
    with torch.no_grad():
        for name, parameter in model.collaborative.named_parameters():
            if name.startswith(kind):
                parameter[index] += 1


@every_family
@checked
@given(seed=seeds, shown=st.sampled_from(["item", "user+item"]), cf=st.sampled_from(["ncf", "mf"]), row=histories)
def test_an_item_sees_its_own_column_only(family: Family, seed: int, shown: str, cf: str, row: list[int]) -> None:
    model = context_only(family, seed, 1, collaborative_columns=shown, collaborative_model=cf)
    before = states(model, [row], [0])[0]
    for moved in range(NUM_ITEMS):
        changed = context_only(family, seed, 1, collaborative_columns=shown, collaborative_model=cf)
        move_vector(changed, "item", moved)
        after = states(changed, [row], [0])[0]
        for position, item in enumerate(row):
            sees = item == moved and moved != UNKNOWN
            distance = far(before[position], after[position])
            assert distance > DIFFERENT if sees else distance < SAME, (position, item, moved)


@every_family
@pytest.mark.parametrize("shown", ["user", "user+item"])
@pytest.mark.parametrize("cf", ["ncf", "mf"])
def test_a_row_sees_the_column_of_its_own_user_only(family: Family, shown: str, cf: str) -> None:
    """A user that M_cf does not know, and a row whose column is dropped, see none."""
    config = ModelConfig(bottleneck=3, collaborative_dim=6, collaborative_columns=shown, collaborative_model=cf)
    rows, users, hidden = [[1, 2], [1, 2], [1, 2], [1, 2]], [0, 1, -1, 1], frozenset({3})
    model = random_model(family, config, 3)
    before = states(model, rows, users, hidden)
    move_vector(model, "user", 1)
    after = states(model, rows, users, hidden)
    moved = [far(left, right) for left, right in zip(before, after, strict=True)]
    assert moved[1] > DIFFERENT
    assert max(moved[0], moved[2], moved[3]) < SAME
    assert far(before[2], before[3]) < SAME, "dropped and unknown are the same"


@every_family
@checked
@given(seed=seeds, row=histories)
def test_a_later_items_column_never_changes_an_earlier_state(family: Family, seed: int, row: list[int]) -> None:
    config = ModelConfig(bottleneck=3, collaborative_dim=6, collaborative_columns="user+item")
    model = random_model(family, config, seed)
    before = states(model, [row], [0])[0]
    move_vector(model, "item", row[-1])
    after = states(model, [row], [0])[0]
    first = row.index(row[-1])
    assert far(before[:first], after[:first]) < SAME if first else True
    assert far(before[-1], after[-1]) > DIFFERENT or row[-1] == UNKNOWN
