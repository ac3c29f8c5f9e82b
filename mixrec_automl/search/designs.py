"""Sets and tables of binary designs, for any number of bits. A design's key is its bits packed into bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor


def all_designs(bits: int) -> Tensor:
    """{0,1}^n as [2^n, n] in counting order, the first bit the most significant."""
    places = torch.arange(bits - 1, -1, -1)
    return ((torch.arange(1 << bits)[:, None] >> places) & 1).to(torch.float64)


def keys(designs: Tensor) -> list[bytes]:
    """One key a row of [any, n]."""
    packed = np.packbits(designs.to(torch.bool).numpy(), axis=1)
    width = packed.shape[1]
    whole = packed.tobytes()
    return [whole[first : first + width] for first in range(0, len(whole), width)]


class DesignSet:
    """Designs of equal length."""

    def __init__(self, designs: Iterable[Tensor]) -> None:
        self._keys = {key for design in designs for key in keys(design[None])}

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, designs: Tensor) -> Tensor:
        """[any, n] -> bool [any]."""
        return torch.tensor([key in self._keys for key in keys(designs)], dtype=torch.bool)


class Memo:
    """Evaluates a function of designs once for each distinct design."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._values: dict[bytes, float] = {}
        self.best = -float("inf")
        """Highest value so far."""

    def __len__(self) -> int:
        return len(self._values)

    def __call__(self, designs: Tensor) -> Tensor:
        """[any, n] -> float64 [any]."""
        names = keys(designs)
        missing = {name: row for row, name in enumerate(names) if name not in self._values}
        if missing:
            values = self._function(designs[list(missing.values())]).tolist()
            self._values.update(zip(missing, values, strict=True))
            self.best = max(self.best, *values)
        return torch.tensor([self._values[name] for name in names], dtype=torch.float64)
