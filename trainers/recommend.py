"""Top-k recommendations after histories, given as item IDs of the catalogue or as free text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.sequence_data import Catalogue
from trainers.errors import UserError


class Recommender(Protocol):
    """What a package of a model can do."""

    @property
    def catalogue(self) -> Catalogue:
        """Of the items that are ranked."""

    @property
    def reads_texts(self) -> bool:
        """Whether it can score histories of descriptions."""

    def score(self, histories: Sequence[NDArray[np.int32]]) -> Tensor:
        """[N, I] after each history of item indices, oldest first."""

    def score_texts(self, histories: Sequence[Sequence[str]]) -> Tensor:
        """[N, I] after histories of descriptions. Raises UserError where the model reads no text, or one is empty."""


@dataclass(frozen=True)
class Recommendation:
    """One recommended item."""

    rank: int
    item: str
    """Raw identifier"""
    title: str
    score: float
    """Log-probability under the model's softmax over the whole catalogue"""


@dataclass(frozen=True)
class Query:
    """What is asked for after one history.

    Raises:
        UserError: an empty history, or k below 1.
    """

    history: Sequence[str]
    """Item identifiers, oldest first; or, with `texts`, descriptions of items that need not be in the catalogue"""
    texts: bool = False
    k: int = 10
    exclude_seen: bool = False
    """Leave the items of an ID history out"""
    allow: frozenset[str] | None = None
    """The only items that may be recommended; None: all. Identifiers that the catalogue lacks say nothing"""
    deny: frozenset[str] = frozenset()
    """Items that must not be recommended, likewise"""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"k is {self.k}, but must be at least 1")
        if not self.history:
            raise UserError("the history is empty: give at least one item")


def recommend(package: Recommender, query: Query) -> list[Recommendation]:
    """The `query.k` best items, or fewer where fewer are allowed. Raises as `recommend_each`."""
    return recommend_each(package, [query])[0]


def recommend_each(package: Recommender, queries: Sequence[Query]) -> list[list[Recommendation]]:
    """The answer to each query; all histories of identifiers are read together, and so are all of texts.

    Raises:
        UserError: an identifier that the catalogue lacks, a text without tokens, or texts for a model that reads none.
    """
    of_items = [place for place, query in enumerate(queries) if not query.texts]
    of_texts = [place for place, query in enumerate(queries) if query.texts]
    answers: dict[int, list[Recommendation]] = {}
    if of_items:
        read = [indices(package.catalogue, queries[place].history) for place in of_items]
        for place, items, scores in zip(of_items, read, package.score(read), strict=True):
            seen = items if queries[place].exclude_seen else items[:0]
            answers[place] = _best(package.catalogue, queries[place], scores, seen)
    if of_texts:
        none = np.zeros(0, dtype=np.int32)
        texts = [queries[place].history for place in of_texts]
        for place, scores in zip(of_texts, package.score_texts(texts), strict=True):
            answers[place] = _best(package.catalogue, queries[place], scores, none)
    return [answers[place] for place in range(len(queries))]


def _best(catalogue: Catalogue, query: Query, scores: Tensor, seen: NDArray[np.int32]) -> list[Recommendation]:
    """From the scores [I] of the whole catalogue: what is left out does not change the others' probabilities."""
    scores = scores.log_softmax(dim=-1)
    left_out = torch.zeros(len(scores), dtype=torch.bool)
    if query.allow is not None:
        left_out[:] = True
        left_out[_known(catalogue, query.allow)] = False
    left_out[_known(catalogue, query.deny)] = True
    left_out[torch.from_numpy(seen.astype(np.int64))] = True
    scores = scores.masked_fill(left_out.to(scores.device), -float("inf"))
    best = scores.topk(min(query.k, len(scores)))
    return [
        Recommendation(rank, catalogue.ids[item], catalogue.titles[item], score)
        for rank, (item, score) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start=1)
        if score > -float("inf")
    ]


def _known(catalogue: Catalogue, identifiers: Iterable[str]) -> Tensor:
    return torch.tensor([catalogue.index[one] for one in identifiers if one in catalogue.index], dtype=torch.int64)


def indices(catalogue: Catalogue, history: Sequence[str]) -> NDArray[np.int32]:
    """[n] of the items of a history. Raises UserError for an identifier that the catalogue lacks."""
    for identifier in history:
        if identifier not in catalogue.index:
            raise UserError(
                f"item {identifier!r} is not among the {len(catalogue)} items of this model: give identifiers of its "
                "catalogue, or, to a model that reads texts, descriptions of all items instead"
            )
    return np.array([catalogue.index[identifier] for identifier in history], dtype=np.int32)
