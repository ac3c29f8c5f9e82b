"""Hard sets against their definition, the order of the fallbacks, and a leak test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from trainers.data.co_occurrence import CoOccurrence
from trainers.data.hard_negatives import hard_sets
from trainers.data.item_factors import item_factors
from trainers.data.sequence_data import Catalogue, SequenceData

ITEMS = 90


def random_data(users: int, items: int = ITEMS, seed: int = 0) -> SequenceData:
    """Items 0..4 are never trained on; some items repeat within a user."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(5, items, size=generator.integers(4, 9)) for _ in range(users)]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    names = tuple(map(str, range(items)))
    people = tuple(f"u{user}" for user in range(users))
    return SequenceData(offsets, np.concatenate(rows).astype(np.int32), people, Catalogue(names, names, names), "f")


def text_vectors(items: int = ITEMS) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(items, 6)).astype(np.float32)


def co_occurring(data: SequenceData, item: int) -> set[int]:
    rows = [set(data.training(user).tolist()) for user in range(data.num_users)]
    return set().union(*(row for row in rows if item in row))


def nearest(vectors: NDArray[np.float64], item: int, candidates: set[int], count: int) -> set[int]:
    """The `count` nearest others, and all that tie with the last of them."""
    squares = {other: float(((vectors[other] - vectors[item]) ** 2).sum()) for other in candidates - {item}}
    bar = sorted(squares.values())[count - 1]
    return {other for other, square in squares.items() if square <= bar * (1 + 1e-4)}


def literal_hard_set(data: SequenceData, vectors: NDArray[np.float32], item: int, share: float) -> set[int]:
    """Appendix A, one item at a time, from a dense exact SVD."""
    trained = {int(i) for user in range(data.num_users) for i in data.training(user)}
    if item not in trained:
        return set()
    matrix = np.zeros((data.num_users, data.num_items))
    for user in range(data.num_users):
        matrix[user, data.training(user)] = 1
    _, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = min(1000, data.num_users - 1, data.num_items - 1)
    factors = (right[:kept] * np.sqrt(values[:kept, None])).T
    count = max(20, math.ceil(share * data.num_items))
    near = nearest(vectors.astype(np.float64), item, set(range(data.num_items)), count)
    near |= nearest(factors, item, trained, count)
    return near - co_occurring(data, item) - {item}


@pytest.mark.parametrize("users", [40, 4])
def test_both_directions_are_the_training_parts_whatever_the_chunks(
    users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.data.sequence_data.USERS_AT_ONCE", 9)
    data = random_data(users)
    together = CoOccurrence.of(data)
    expected = [np.unique(data.training(user)).tolist() for user in range(users)]
    mine = np.split(together.user_items, together.user_offsets[1:-1])
    assert [row.tolist() for row in mine] == expected
    theirs = np.split(together.item_users, together.item_offsets[1:-1])
    assert [row.tolist() for row in theirs] == [[u for u in range(users) if i in expected[u]] for i in range(ITEMS)]
    assert np.flatnonzero(together.trained).tolist() == sorted(set().union(*expected))
    marked = np.array([[item in row for item in range(ITEMS)] for row in expected[1:3]])
    assert np.array_equal(together.matrix(slice(1, 3)).toarray(), marked)


def test_chunks_of_users_and_columns_leave_the_factors_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.data.item_factors.DIMENSIONS", 12)
    matrix = (np.random.default_rng(0).random((300, 200)) < 0.1).astype(np.float32)
    whole = item_factors(of_matrix(matrix))
    monkeypatch.setattr("trainers.data.item_factors.COLUMNS_AT_ONCE", 5)
    assert item_factors(of_matrix(matrix)).tobytes() == whole.tobytes()
    monkeypatch.setattr("trainers.data.item_factors.USERS_AT_ONCE", 70)  # sums in another order: rounding
    factors = item_factors(of_matrix(matrix))
    assert factors @ factors.T == pytest.approx(whole @ whole.T, abs=1e-3)


@pytest.mark.parametrize(("users", "share"), [(40, 0.005), (40, 0.3), (200, 0.3)])
def test_hard_sets_are_what_appendix_a_says(users: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.data.hard_negatives.DISTANCES_AT_ONCE", 7 * ITEMS)  # several chunks
    data, vectors = random_data(users), text_vectors()
    found = hard_sets(data, vectors, share=share, encoder="six normals")
    expected = [literal_hard_set(data, vectors, item, share) for item in range(ITEMS)]
    assert [set(found.row(item).tolist()) for item in range(ITEMS)] == expected
    assert all(np.all(np.diff(found.row(item)) > 0) for item in range(ITEMS))
    anchors = [bool(expected[item]) for item in range(ITEMS) if co_occurring(data, item)]
    assert found.anchor_share == pytest.approx(np.mean(anchors))
    assert "text=six normals" in found.fingerprint


def test_partners_and_rows_agree_with_the_sequences() -> None:
    data = random_data(40)
    together = CoOccurrence.of(data)
    rows = together.rows(np.arange(ITEMS))
    for item in range(ITEMS):
        assert set(together.partners(item).tolist()) == co_occurring(data, item)
        assert set(rows[[item]].indices.tolist()) == co_occurring(data, item)


def of_matrix(matrix: NDArray[np.float32]) -> CoOccurrence:
    """Of users with the training items that `matrix` [U, I] marks, and two held-out ones."""
    rows = [np.append(np.flatnonzero(row), [0, 0]) for row in matrix]
    names = tuple(map(str, range(matrix.shape[1])))
    people = tuple(map(str, range(len(matrix))))
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    data = SequenceData(offsets, np.concatenate(rows).astype(np.int32), people, Catalogue(names, names, names), "f")
    return CoOccurrence.of(data)


def test_factors_reproduce_the_distances_of_the_exact_svd() -> None:
    generator = np.random.default_rng(0)
    matrix = (generator.random((60, 35)) < 0.2).astype(np.float32)
    _, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    exact = (right[:34] * np.sqrt(values[:34, None])).T
    factors = item_factors(of_matrix(matrix))
    assert factors.shape == (35, 34)
    assert factors @ factors.T == pytest.approx(exact @ exact.T, abs=1e-4)


def test_a_sketch_smaller_than_the_matrix_finds_its_leading_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.data.item_factors.DIMENSIONS", 12)
    generator = np.random.default_rng(0)
    matrix = (generator.random((400, 300)) < 0.1).astype(np.float32)
    matrix[:200, :100] = 1  # a few strong factors above the noise
    matrix[200:, 100:] = 1
    _, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    exact = (right[:12] * np.sqrt(values[:12, None])).T
    factors = item_factors(of_matrix(matrix))
    gram, expected = factors @ factors.T, exact @ exact.T
    assert np.linalg.norm(gram - expected) < 0.02 * np.linalg.norm(expected)


def test_samples_come_from_the_hard_set_while_it_lasts() -> None:
    data = random_data(40)
    sets = hard_sets(data, text_vectors(), share=0.005, encoder="x")
    rng = np.random.default_rng(0)
    for item in range(ITEMS):
        hard, never = set(sets.row(item).tolist()), set(range(ITEMS)) - co_occurring(data, item) - {item}
        for n in (1, 5, len(hard), min(len(hard) + 3, len(never))):
            drawn = sets.sample(item, n, rng).tolist()
            assert len(drawn) == len(set(drawn)) == n
            assert set(drawn) <= (hard if n <= len(hard) else never)
            assert n <= len(hard) or hard <= set(drawn)


def test_where_every_item_co_occurs_the_rest_of_the_catalogue_serves() -> None:
    names = tuple(map(str, range(6)))
    rows = np.array([0, 1, 2, 3, 4, 4, 5], dtype=np.int32)  # training holds 0..4 together; 5 is apart
    data = SequenceData(np.array([0, 7]), rows, ("u",), Catalogue(names, names, names), "f")
    sets = hard_sets(data, text_vectors(6), share=0.005, encoder="x")
    assert sets.row(2).tolist() == [5]
    drawn = [sets.sample(2, 3, np.random.default_rng(seed)).tolist() for seed in range(40)]
    assert all(row[0] == 5 and len(set(row)) == 3 and 2 not in row for row in drawn)
    assert {item for row in drawn for item in row} == {0, 1, 3, 4, 5}
    with pytest.raises(ValueError, match="6 negatives asked for"):
        sets.sample(2, 6, np.random.default_rng(0))


def test_fills_are_uniform_over_the_items_that_never_co_occur() -> None:
    data = random_data(200)
    sets = hard_sets(data, text_vectors(), share=0.005, encoder="x")
    item = min(range(5, ITEMS), key=lambda i: len(sets.row(i)))
    pool = sorted(set(range(ITEMS)) - co_occurring(data, item) - {item} - set(sets.row(item).tolist()))
    n = len(sets.row(item)) + 1
    rng = np.random.default_rng(0)
    drawn = [int(sets.sample(item, n, rng)[-1]) for _ in range(200 * len(pool))]
    counts = np.bincount(drawn, minlength=ITEMS)
    assert counts.sum() == counts[pool].sum()
    expected = 200.0
    assert ((counts[pool] - expected) ** 2 / expected).sum() < len(pool) + 4 * math.sqrt(2 * len(pool))


def test_held_out_interactions_leave_every_bit_as_it_is() -> None:
    data = random_data(60)
    items = data.items.copy()
    held_out = np.concatenate([data.offsets[1:] - 1, data.offsets[1:] - 2])
    items[held_out] = np.random.default_rng(5).permutation(items[held_out])
    assert (items != data.items).sum() > 50
    permuted = SequenceData(data.offsets, items, data.user_ids, data.catalogue, data.fingerprint)
    one, two = (hard_sets(each, text_vectors(), share=0.1, encoder="x") for each in (data, permuted))
    assert one.items.tobytes() == two.items.tobytes()
    assert one.offsets.tobytes() == two.offsets.tobytes()
    assert one.fingerprint == two.fingerprint
    for item in range(ITEMS):
        drawn = [sets.sample(item, 8, np.random.default_rng(item)).tolist() for sets in (one, two)]
        assert drawn[0] == drawn[1]


def test_text_vectors_must_fit_the_catalogue() -> None:
    with pytest.raises(ValueError, match=r"expected finite text vectors \[90, e\], got \(89, 6\)"):
        hard_sets(random_data(10), text_vectors(89), share=0.1, encoder="x")
