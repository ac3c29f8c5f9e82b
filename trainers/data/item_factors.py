"""Item vectors of a matrix factorisation of the training user-item matrix (paper, Appendix A; ruling 16)."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

DIMENSIONS = 1000
OVERSAMPLING = 50
SUBSPACE_ITERATIONS = 4
SEED = 0
USERS_AT_ONCE = 8192


def item_factors(user_items: sp.csr_matrix) -> NDArray[np.float32]:
    """[I, min(1000, U - 1, I - 1)] item vectors of the truncated SVD of `user_items` [U, I].

    With `A = P S Q^T` the vectors are `Q S^(1/2)`: users and items share the singular values evenly, which is where
    a factorisation `A = X Y^T` with equally penalised factors ends up.

    The SVD is a randomised one (Halko, Martinsson and Tropp, 2011, section 4.5) from a fixed seed: exact up to
    rounding where there are at most 1050 users or items. It holds a few arrays of [U + I, 1050] float32.
    """
    users, items = user_items.shape
    dimensions = max(1, min(DIMENSIONS, users - 1, items - 1))
    sketch = min(dimensions + OVERSAMPLING, users, items)
    random = np.random.default_rng(SEED).standard_normal((users, sketch), dtype=np.float32)
    basis = _orthonormal(user_items.T @ random)  # [I, sketch], close to the leading right singular vectors
    if sketch < min(users, items):
        for _ in range(SUBSPACE_ITERATIONS):
            basis = _orthonormal(user_items.T @ (user_items @ basis))
    # In float64: the Gram matrix squares the singular values.
    gram = np.zeros((sketch, sketch))
    for first in range(0, users, USERS_AT_ONCE):
        projected = (user_items[first : first + USERS_AT_ONCE] @ basis).astype(np.float64)
        gram += projected.T @ projected
    squares, vectors = scipy.linalg.eigh(gram)  # ascending
    leading = slice(None, -dimensions - 1, -1)
    scaled = vectors[:, leading] * np.maximum(squares[leading], 0) ** 0.25
    factors: NDArray[np.float32] = basis @ scaled.astype(np.float32)
    return factors


def _orthonormal(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    basis: NDArray[np.float32] = scipy.linalg.qr(columns, mode="economic", check_finite=False)[0]
    return basis
