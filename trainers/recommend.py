"""Top-k recommendations for one history, given as item IDs of the catalogue or as free text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainers.data.item_text import tokenize_items
from trainers.data.sequence_data import ItemTokens
from trainers.errors import UserError
from trainers.evaluate import score_histories, window
from trainers.package import Package

UNKNOWN_USER = -1


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
    package: Package, history: Sequence[str], *, texts: bool = False, k: int = 10, exclude_seen: bool = False
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
    layout = package.layout
    if texts:
        items = np.arange(len(package.catalogue), len(package.catalogue) + len(history), dtype=np.int32)
        layout = replace(
            layout,
            item_tokens=_with_texts(package, history),
            known_items=np.concatenate([layout.known_items, np.zeros(len(history), dtype=np.bool_)]),
        )
    else:
        items = np.array([_index(package, identifier) for identifier in history], dtype=np.int32)
    read = window(package.model, layout, items, package.config.data.history)
    scores = score_histories(package.model, layout, [read], [UNKNOWN_USER])[0].log_softmax(dim=-1)
    if exclude_seen and not texts:
        scores[items.astype(np.int64)] = -float("inf")
    best = scores.topk(min(k, len(scores)))
    return [
        Recommendation(rank, package.catalogue.ids[item], package.catalogue.titles[item], score)
        for rank, (item, score) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start=1)
        if score > -float("inf")
    ]


def _index(package: Package, identifier: str) -> int:
    try:
        return package.catalogue.index[identifier]
    except KeyError:
        raise UserError(
            f"item {identifier!r} is not among the {len(package.catalogue)} items of this model; "
            f"give identifiers of its catalogue, or describe the items with --text"
        ) from None


def _with_texts(package: Package, texts: Sequence[str]) -> ItemTokens:
    """The catalogue's tokens with one more row a text, written as the catalogue writes a title."""
    if any(not text.strip() for text in texts):
        raise UserError("a text of the history is empty: describe each item in a few words")
    known = package.layout.item_tokens
    added = tokenize_items(
        [f"title {text.strip()}" for text in texts], package.tokenizer, package.config.data.sentence_tokens
    )
    return ItemTokens(
        np.concatenate([known.offsets, known.offsets[-1] + added.offsets[1:]]),
        np.concatenate([known.tokens, added.tokens]),
    )
