"""Training windows: every target once, with half a history before it at least."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.tiny_task import sequences
from trainers.baselines.rows import TrainingWindows, history_rows, to_rows
from trainers.data.histories import history_and_target
from trainers.data.sequence_data import Catalogue, SequenceData


@given(lengths=st.lists(st.integers(3, 40), min_size=1, max_size=5), history=st.integers(1, 12))
def test_every_target_counts_once_and_has_its_context(lengths: list[int], history: int) -> None:
    names = tuple(str(item) for item in range(sum(lengths)))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    data = SequenceData(  # every interaction has an item of its own, so that places can be told
        offsets, np.arange(len(names), dtype=np.int32), names[: len(lengths)], Catalogue(names, names, names), ""
    )
    counted: list[int] = []
    for rows in TrainingWindows.of(data, history).batches(3, np.random.default_rng(0)):
        assert rows.items.shape[1] <= history + 1
        for items, length, first in zip(rows.items, rows.lengths.tolist(), rows.counted_from.tolist(), strict=True):
            row = items[:length].tolist()
            user = int(np.searchsorted(offsets, row[0], side="right")) - 1
            assert row == list(range(row[0], row[-1] + 1))
            assert offsets[user] <= row[0] <= row[-1] < offsets[user + 1] - 2, "the training part of one user"
            assert 1 <= first < length
            for place in range(first, length):
                had = row[place] - offsets[user]
                assert place >= min(had, max(1, history // 2)), "context"
            counted += row[first:]
    expected = [item for user in range(len(lengths)) for item in data.training(user)[1:].tolist()]
    assert sorted(counted) == expected


def test_a_history_is_the_newest_items_before_the_target() -> None:
    data, users = sequences(), np.array([3, 0, 7])
    for split in ("validation", "test"):
        rows = history_rows(data, users, split, 4)
        for row, user in enumerate(users):
            history, _ = history_and_target(data, int(user), split)
            assert rows.items[row, : rows.lengths[row]].tolist() == history[-4:].tolist()
            assert (rows.items[row, rows.lengths[row] :] == data.num_items).all()


def test_rows_are_filled_up_behind() -> None:
    rows = to_rows([np.array([4, 2]), np.array([1])], 9)
    assert (rows.items.tolist(), rows.lengths.tolist(), rows.last.tolist()) == ([[4, 2], [1, 9]], [2, 1], [1, 0])
