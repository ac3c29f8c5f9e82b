"""Item vectors of a matrix factorisation of the training user-item matrix (paper, Appendix A; ruling 16)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from trainers.data.co_occurrence import CoOccurrence

DIMENSIONS = 1000
OVERSAMPLING = 50
SUBSPACE_ITERATIONS = 4
SEED = 0
USERS_AT_ONCE = 8192
COLUMNS_AT_ONCE = 128


def item_factors(together: CoOccurrence) -> NDArray[np.float32]:
    """[I, min(1000, U - 1, I - 1)] item vectors of the truncated SVD of the user-item matrix [U, I].

    With `A = P S Q^T` the vectors are `Q S^(1/2)`: users and items share the singular values evenly, which is where
    a factorisation `A = X Y^T` with equally penalised factors ends up.

    The SVD is a randomised one (Halko, Martinsson and Tropp, 2011, section 4.5) from a fixed seed: exact up to
    rounding where there are at most 1050 users or items. It holds two arrays of [I, 1050] float32, and less than one
    more for the users of a chunk: however many users there are.
    """
    users, items = together.num_users, together.num_items
    dimensions = factor_dimensions(together)
    sketch = min(dimensions + OVERSAMPLING, users, items)
    basis = _orthonormal(_random_combinations(together, sketch))  # close to the leading right singular vectors
    if sketch < min(users, items):
        for _ in range(SUBSPACE_ITERATIONS):
            _apply_gram(together, basis)
            basis = _orthonormal(basis)
    # In float64: the Gram matrix squares the singular values.
    basis = np.ascontiguousarray(basis)
    gram = np.zeros((sketch, sketch))
    for chunk in _chunks(users, USERS_AT_ONCE):
        projected = (together.matrix(chunk) @ basis).astype(np.float64)
        gram += projected.T @ projected
    squares, vectors = scipy.linalg.eigh(gram)  # ascending
    leading = slice(None, -dimensions - 1, -1)
    scaled = vectors[:, leading] * np.maximum(squares[leading], 0) ** 0.25
    factors: NDArray[np.float32] = basis @ scaled.astype(np.float32)
    return factors


def factor_dimensions(together: CoOccurrence) -> int:
    """Width of `item_factors`."""
    return max(1, min(DIMENSIONS, together.num_users - 1, together.num_items - 1))


def _random_combinations(together: CoOccurrence, sketch: int) -> NDArray[np.float32]:
    """[I, sketch] `A^T R` of a standard normal `R` [U, sketch], drawn one chunk of users after the other."""
    generator = np.random.default_rng(SEED)
    combined = np.zeros((together.num_items, sketch), dtype=np.float32, order="F")
    for chunk in _chunks(together.num_users, _users_at_once(together)):
        matrix: sp.csc_matrix = together.matrix(chunk).T
        random = generator.standard_normal((chunk.stop - chunk.start, sketch), dtype=np.float32)
        for columns in _chunks(sketch, COLUMNS_AT_ONCE):
            combined[:, columns] += matrix @ np.ascontiguousarray(random[:, columns])
    return combined


def _apply_gram(together: CoOccurrence, basis: NDArray[np.float32]) -> None:
    """Replace `basis` [I, sketch] by `A^T A basis`; some columns at a time, so that no second array is needed."""
    for columns in _chunks(basis.shape[1], COLUMNS_AT_ONCE):
        block = np.ascontiguousarray(basis[:, columns])
        product = np.zeros_like(block)
        for chunk in _chunks(together.num_users, _users_at_once(together)):
            matrix = together.matrix(chunk)
            product += matrix.T @ (matrix @ block)
        basis[:, columns] = product


def _users_at_once(together: CoOccurrence) -> int:
    """Each chunk of users costs a pass over arrays of [I, columns], so a chunk grows with the catalogue."""
    return max(USERS_AT_ONCE, together.num_items // 4)


def _chunks(total: int, at_once: int) -> Iterator[slice]:
    for first in range(0, total, at_once):
        yield slice(first, min(first + at_once, total))


def _orthonormal(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """An orthonormal basis of the columns' space, in their memory where they are in Fortran's order."""
    decomposed = scipy.linalg.qr(columns, mode="economic", check_finite=False, overwrite_a=True)
    basis: NDArray[np.float32] = decomposed[0]
    return basis
