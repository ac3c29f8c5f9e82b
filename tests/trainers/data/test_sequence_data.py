"""What is computed for all users at once against one user at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainers.tiny_task import NUM_ITEMS, sequences


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.data.sequence_data.USERS_AT_ONCE", 7)


def test_pairs_and_counts_are_those_of_the_training_parts() -> None:
    data = sequences()
    expected = [(user, int(item)) for user in range(data.num_users) for item in data.training(user)]
    users, items = data.training_pairs()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == expected
    chunks = [data.training_pairs(users) for users in data.user_chunks()]
    assert len(chunks) == 4
    assert np.array_equal(np.concatenate([users for users, _ in chunks]), users)
    assert np.array_equal(np.concatenate([items for _, items in chunks]), items)
    assert data.training_counts().tolist() == np.bincount(items, minlength=NUM_ITEMS).tolist()


@pytest.mark.parametrize("chosen", [[], [3], [20, 0, 7]])
def test_chosen_users_keep_sequence_and_name(chosen: list[int]) -> None:
    data = sequences()
    part = data.select_users(np.array(chosen, dtype=np.int64))
    assert part.num_users == len(chosen)
    assert list(part.user_ids) == [data.user_ids[user] for user in chosen]
    assert [part.sequence(row).tolist() for row in range(len(chosen))] == [data.sequence(u).tolist() for u in chosen]
    assert part.items.dtype == np.int32
