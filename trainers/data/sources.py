"""Where a data set's items and interactions lie, and reading both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainers.data.tables import Attributes, Interactions, ItemTable, read_interactions, read_items, read_sequences


@dataclass(frozen=True)
class Source:
    """Two files: items, and interactions either one a row or one user's sequence a row."""

    items: Path
    interactions: Path | None = None
    sequences: Path | None = None
    attributes: Attributes | None = None
    """What makes up the item sentence, in order; None: those of DEFAULT_ATTRIBUTES that the items file has."""

    def __post_init__(self) -> None:
        if (self.interactions is None) == (self.sequences is None):
            raise ValueError("give either interactions or sequences")

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.items, self.interactions, self.sequences) if path is not None)


def read(source: Source) -> tuple[ItemTable, Interactions]:
    """Read both files. Raises DataError as `read_items`, `read_interactions` and `read_sequences` do."""
    items = read_items(source.items, source.attributes)
    if source.sequences is not None:
        return items, read_sequences(source.sequences, items)
    assert source.interactions is not None
    return items, read_interactions(source.interactions, items)
