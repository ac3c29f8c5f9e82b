"""Where a data set's items and interactions lie, and reading both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainers.data.amazon import read_metadata, read_reviews
from trainers.data.tables import Attributes, Interactions, ItemTable, read_interactions, read_items, read_sequences


@dataclass(frozen=True)
class Source:
    """Two files: items, and interactions: one a row, one user's sequence a row, or Amazon's reviews."""

    items: Path
    interactions: Path | None = None
    sequences: Path | None = None
    reviews: Path | None = None
    """Amazon's of 2018; `items` are then its metadata"""
    attributes: Attributes | None = None
    """What makes up the item sentence, in order; None: those of DEFAULT_ATTRIBUTES that the items file has."""

    def __post_init__(self) -> None:
        if len(self.files) != 2:
            raise ValueError("give one of interactions, sequences and reviews")

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.items, self.interactions, self.sequences, self.reviews) if path is not None)


def read(source: Source) -> tuple[ItemTable, Interactions]:
    """Read both files. Raises DataError as the functions of `tables` and `amazon` do."""
    if source.reviews is not None:
        items = read_metadata(source.items)
        return items, read_reviews(source.reviews, items)
    items = read_items(source.items, source.attributes)
    if source.sequences is not None:
        return items, read_sequences(source.sequences, items)
    assert source.interactions is not None
    return items, read_interactions(source.interactions, items)
