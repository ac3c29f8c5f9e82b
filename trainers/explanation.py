"""Why an item is recommended: what its score owes to each item of the history, by leaving that one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainers.recommend import Query, Recommendation, Recommender, indices

MOST_AT_ONCE = 64
"""Histories: of each the scores of the whole catalogue are in memory, of a million items 4 MB"""


@dataclass(frozen=True)
class Reason:
    """One item of the history, in view of one recommended item."""

    item: str
    """Identifier, or the text as it was given"""
    title: str
    """The same for a text"""
    drop: float
    """How far the recommended item's log-probability falls, in nats, where the history lacks this one; negative: it
    rises"""


def occlusion(package: Recommender, query: Query, found: Sequence[Recommendation]) -> list[list[Reason]]:
    """The reasons of each of `found`, the answer to `query`, largest drop first; none of a history of one item alone.

    An item is left out as if the user had never had it: all its occurrences, so that an item which the model's window
    no longer held may move into it. This is the occlusion of Zeiler and Fergus (2014); drops of several items do not
    add up, for the model may read them together.

    Raises:
        UserError: as `trainers.recommend.recommend`.
    """
    items = list(dict.fromkeys(query.history))
    if len(items) < 2 or not found:
        return [[] for _ in found]
    shortened = [[one for one in query.history if one != item] for item in items]
    catalogue = package.catalogue
    titles = items if query.texts else [catalogue.titles[index] for index in indices(catalogue, items)]
    places = torch.tensor([catalogue.index[one.item] for one in found])
    kept = []
    for start in range(0, len(shortened), MOST_AT_ONCE):
        block = shortened[start : start + MOST_AT_ONCE]
        if query.texts:
            scores = package.score_texts(block)
        else:
            scores = package.score([indices(catalogue, history) for history in block])
        kept.append(scores.log_softmax(dim=-1)[:, places.to(scores.device)])
    without = torch.cat(kept).T.tolist()  # [found][items]
    return [
        sorted(
            (Reason(item, title, one.score - left) for item, title, left in zip(items, titles, row, strict=True)),
            key=lambda reason: -reason.drop,
        )
        for one, row in zip(found, without, strict=True)
    ]
