"""Identifiers of users, as many as there are users: kept as one Arrow column, an eighth of a tuple of Python texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hashlib import _Hash

AT_ONCE = 1 << 16


class Names(Sequence[str]):
    """An unchanging sequence of texts."""

    def __init__(self, column: Any) -> None:
        """Takes a pyarrow array of strings without nulls; see `of` for any other sequence."""
        self._column = column

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        return names if isinstance(names, Names) else cls(pa.array(names, pa.string()))

    @property
    def column(self) -> Any:
        """The pyarrow array."""
        return self._column

    def take(self, positions: NDArray[np.int64]) -> Names:
        """The names at `positions` [N], in that order."""
        return Names(self._column.take(pa.array(positions)))

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> Names: ...
    def __getitem__(self, position: int | slice) -> str | Names:
        if isinstance(position, slice):
            return Names(self._column[position])
        name: str = self._column[int(position)].as_py()
        return name

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), AT_ONCE):
            yield from self._column.slice(first, AT_ONCE).to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def hash_as_json(digest: _Hash, names: Sequence[str]) -> None:
    """Feed `digest` what `json.dumps(names)` gives for a list of texts, without building it whole."""
    digest.update(b"[")
    for first in range(0, len(names), AT_ONCE):
        part = json.dumps(list(names[first : first + AT_ONCE]))[1:-1]
        digest.update((", " if first else "").encode() + part.encode())
    digest.update(b"]")
