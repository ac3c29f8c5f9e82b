"""Why an item is recommended: what its score owes to each item of the history, by leaving that one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainers.recommend import Query, Recommendation, Recommender, indices


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
    no longer held may move into it. What is left is scored in one call. This is the occlusion of Zeiler and Fergus
    (2014); drops of several items do not add up, for the model may read them together.

    Raises:
        UserError: as `trainers.recommend.recommend`.
    """
    items = list(dict.fromkeys(query.history))
    if len(items) < 2 or not found:
        return [[] for _ in found]
    shortened = [[one for one in query.history if one != item] for item in items]
    catalogue = package.catalogue
    if query.texts:
        scores, titles = package.score_texts(shortened), items
    else:
        scores = package.score([indices(catalogue, history) for history in shortened])
        titles = [catalogue.titles[catalogue.index[item]] for item in items]
    places = torch.tensor([catalogue.index[one.item] for one in found], device=scores.device)
    without = scores.log_softmax(dim=-1)[:, places].T.tolist()  # [found][items]
    return [
        sorted(
            (Reason(item, title, one.score - left) for item, title, left in zip(items, titles, row, strict=True)),
            key=lambda reason: -reason.drop,
        )
        for one, row in zip(found, without, strict=True)
    ]
