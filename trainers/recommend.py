"""Top-k recommendations for one history, given as item IDs of the catalogue or as free text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.sequence_data import Catalogue
from trainers.errors import UserError


class Recommender(Protocol):
    """What a package of a model can do."""

    @property
    def catalogue(self) -> Catalogue:
        """Of the items that are ranked."""

    def score(self, items: NDArray[np.int32]) -> Tensor:
        """[I] after a history of item indices, oldest first."""

    def score_texts(self, texts: Sequence[str]) -> Tensor:
        """[I] after a history of descriptions. Raises UserError where the model reads no text, or one is empty."""


@dataclass(frozen=True)
class Recommendation:
    """One recommended item."""

    rank: int
    item: str
    """Raw identifier"""
    title: str
    score: float
    """Log-probability under the model's softmax over the whole catalogue"""


def recommend(
    package: Recommender, history: Sequence[str], *, texts: bool = False, k: int = 10, exclude_seen: bool = False
) -> list[Recommendation]:
    """The `k` best items after `history`, oldest first.

    Args:
        history: item identifiers, or, with `texts`, descriptions of items that need not be in the catalogue.
        exclude_seen: leave the items of an ID history out.

    Raises:
        UserError: an empty history, an unknown identifier, a text without tokens, or k below 1.
    """
    if k < 1:
        raise UserError(f"k is {k}, but must be at least 1")
    if not history:
        raise UserError("the history is empty: give at least one item")
    if texts:
        scores = package.score_texts(history).log_softmax(dim=-1)
    else:
        items = np.array([_index(package, identifier) for identifier in history], dtype=np.int32)
        scores = package.score(items).log_softmax(dim=-1)
        if exclude_seen:
            scores[items.astype(np.int64)] = -float("inf")
    best = scores.topk(min(k, len(scores)))
    return [
        Recommendation(rank, package.catalogue.ids[item], package.catalogue.titles[item], score)
        for rank, (item, score) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start=1)
        if score > -float("inf")
    ]


def _index(package: Recommender, identifier: str) -> int:
    try:
        return package.catalogue.index[identifier]
    except KeyError:
        raise UserError(
            f"item {identifier!r} is not among the {len(package.catalogue)} items of this model; "
            f"give identifiers of its catalogue, or describe the items with --text"
        ) from None
