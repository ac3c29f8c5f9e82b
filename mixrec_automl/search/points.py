"""Sets and tables of points of a search space."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor


def keys(points: Tensor) -> list[bytes]:
    """One key a row of [any, n]: its numbers, zero without a sign."""
    rows = np.ascontiguousarray(points.detach().numpy(), dtype=np.float64) + 0.0
    width, whole = rows.shape[1] * rows.itemsize, rows.tobytes()
    return [whole[first : first + width] for first in range(0, len(whole), width)]


class PointSet:
    """Points of one space."""

    def __init__(self, points: Iterable[Tensor]) -> None:
        self._keys = {key for point in points for key in keys(point[None])}

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, points: Tensor) -> Tensor:
        """[any, n] -> bool [any]."""
        return torch.tensor([key in self._keys for key in keys(points)], dtype=torch.bool)


class Memo:
    """Evaluates a function of points once for each distinct point."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._values: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __call__(self, points: Tensor) -> Tensor:
        """[any, n] -> float64 [any]."""
        names = keys(points)
        missing = {name: row for row, name in enumerate(names) if name not in self._values}
        if missing:
            values = self._function(points[list(missing.values())]).tolist()
            self._values.update(zip(missing, values, strict=True))
        return torch.tensor([self._values[name] for name in names], dtype=torch.float64)
