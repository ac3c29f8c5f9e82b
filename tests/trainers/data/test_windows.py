"""Windows found together, against a walk back through one history at a time."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.tiny_task import NUM_ITEMS, tiny_tokens
from trainers.data import windows as module
from trainers.data.sequence_data import ItemTokens
from trainers.data.windows import Windows


def walk_back(items: list[int], tokens: ItemTokens, history: int, context: int) -> list[int]:
    """Go back from the newest item until history or context is full."""
    row: list[int] = []
    for item in reversed(items):
        context -= len(tokens.row(item)) + 1
        if context < 0 or len(row) == history:
            break
        row.insert(0, item)
    return row


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=8), min_size=1, max_size=7),
    held_out=st.integers(0, 2),
    history=st.integers(1, 9),
    context=st.integers(0, 30),
)
def test_windows_are_those_of_a_walk_back(rows: list[list[int]], held_out: int, history: int, context: int) -> None:
    """Histories may be empty, and may end before the next one begins; the chunks are of three histories."""
    tokens = tiny_tokens()
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ends = np.maximum(offsets[1:] - held_out, offsets[:-1])
    with mock.patch.object(module, "WINDOWS_AT_ONCE", 3):
        found = Windows.of(items, offsets[:-1], ends, tokens, history, context)
    for place, row in enumerate(rows):
        expected = walk_back(row[: max(len(row) - held_out, 0)], tokens, history, context)
        assert items[found.first[place] : found.end[place]].tolist() == expected
        assert found.tokens[place] == sum(len(tokens.row(item)) + 1 for item in expected)
