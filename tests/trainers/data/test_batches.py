"""Packing a step: every index of a batch points at what the step says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracles.cases import random_step
from tests.trainers.data.seen import seen
from tests.trainers.tiny_task import tiny_tokens
from trainers.config import ModelConfig
from trainers.data.batches import Batch, Layout, collate
from trainers.data.rows import NO_COLUMN, Rows
from trainers.data.step import Step

NUM_USERS, NUM_ITEMS = 6, 9
KNOWN = np.arange(NUM_ITEMS) != 4


def layout(columns: str = "user+item", **model: object) -> Layout:
    config = ModelConfig(collaborative_columns=columns, **model)  # type: ignore[arg-type]
    return Layout.of(config, tiny_tokens(NUM_ITEMS), (3, 4, 5), 1, KNOWN)


def step(**changes: object) -> Step:
    drawn = random_step(NUM_USERS, NUM_ITEMS, rows=4, seed=2)
    return Step(**{**{name: getattr(drawn, name) for name in Step.__dataclass_fields__}, **changes})  # type: ignore[arg-type]


def shown(batch: Batch) -> tuple[list[int], list[int]]:
    assert batch.histories is not None
    return columns_of(batch.histories)


def columns_of(rows: Rows) -> tuple[list[int], list[int]]:
    """Item and user column of each item's segment."""
    segments = seen(rows, rows.context, len(rows.tokens))
    return [segment.item for segment in segments], [segment.user for segment in segments]


def test_every_index_points_at_what_the_step_says() -> None:
    drawn = step()
    batch = collate(drawn, layout())
    flat = [(row, position) for row, inputs in enumerate(drawn.inputs) for position in range(len(inputs))]
    assert batch.targets.tolist() == [drawn.targets[row][position] for row, position in flat]
    encoded = batch.align_items.tolist()
    assert len(set(encoded)) == len(encoded), "each distinct item is encoded once"
    assert [encoded[row] for row in batch.align_terms.tolist()] == list(drawn.align_items)
    for anchor, readout, candidates in zip(drawn.anchors, batch.anchors, batch.candidates, strict=True):
        assert flat[int(readout)] == (anchor.row, anchor.position)
        assert [encoded[row] for row in candidates.tolist()] == [anchor.positive, *anchor.negatives]
    assert batch.collaborative_users.tolist() == [draw.user for draw in drawn.collaborative]
    assert batch.collaborative_positives.tolist() == [draw.positive for draw in drawn.collaborative]
    assert batch.collaborative_negatives.tolist() == [list(draw.negatives) for draw in drawn.collaborative]
    assert batch.counts == {
        "seq": len(flat),
        "align": len(drawn.align_items),
        "contrastive": len(drawn.anchors),
        "collaborative": len(drawn.collaborative),
    }


def test_tokens_are_counted() -> None:
    drawn, lengths = step(), tiny_tokens(NUM_ITEMS).lengths
    batch = collate(drawn, layout())
    histories = sum(lengths[item] + 1 for row in drawn.inputs for item in row)
    alignments = sum(3 + lengths[item] + 1 for item in batch.align_items.tolist())
    assert batch.num_tokens == histories + alignments


def test_an_item_that_is_only_contrasted_is_encoded_but_no_term_of_alignment() -> None:
    """A worker's share: L_align's terms of these items went to another worker."""
    batch = collate(step(align_items=()), layout())
    assert len(batch.align_terms) == 0
    assert len(batch.align_items) > 0
    assert batch.counts["align"] == 0


def test_a_share_without_terms_is_empty() -> None:
    nothing = step(users=(), inputs=(), targets=(), anchors=(), align_items=(), collaborative=())
    batch = collate(nothing, layout())
    assert batch.histories is None
    assert batch.alignments is None
    assert set(batch.counts.values()) == {0}
    assert batch.num_tokens == 0


@pytest.mark.parametrize(
    ("columns", "item", "user"), [("none", 0, 0), ("item", 1, 0), ("user", 0, 1), ("user+item", 1, 1)]
)
def test_columns_are_those_of_the_configuration(columns: str, item: int, user: int) -> None:
    drawn = step()
    flat = [(drawn.users[row], item) for row, inputs in enumerate(drawn.inputs) for item in inputs]
    items, users = shown(collate(drawn, layout(columns)))
    assert items == [number if item and KNOWN[number] else NO_COLUMN for _, number in flat]
    assert users == [number if user else NO_COLUMN for number, _ in flat]


def test_dropped_and_unknown_users_have_no_column() -> None:
    drawn = step(hidden_user_columns=frozenset({1}))
    _, users = shown(collate(drawn, layout()))
    expected = [NO_COLUMN if row == 1 else drawn.users[row] for row, inputs in enumerate(drawn.inputs) for _ in inputs]
    assert users == expected
    packed = layout().histories([[1], [2]], [-1, 3])
    assert columns_of(packed)[1] == [NO_COLUMN, 3]


def test_mixrec_base_has_no_columns_and_alignment_can_hide_its_own() -> None:
    drawn = step()
    assert set(shown(collate(drawn, layout(kind="mixrec_base")))[0]) == {NO_COLUMN}
    for sees in (True, False):
        alignments = layout(align_sees_item_column=sees).alignments([0, 4])
        items, users = columns_of(alignments)
        assert items == [0 if sees else NO_COLUMN, NO_COLUMN], "4 is unknown to M_cf"
        assert set(users) == {NO_COLUMN}


def test_the_leading_token_is_an_option() -> None:
    assert layout(leading_bos=True).histories([[1]], [0]).tokens[0] == 1
    assert layout().histories([[1]], [0]).tokens[0] == tiny_tokens(NUM_ITEMS).row(1)[0]
