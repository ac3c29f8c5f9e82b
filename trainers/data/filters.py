"""One pass of filters over interactions, each step counted (paper, 3.1.1; ruling 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.config import FilterConfig
from trainers.data.tables import Interactions

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """What is left after a step."""

    step: str
    users: int
    """Users with at least one interaction"""
    items: int
    """Items that are still in the catalogue"""
    interactions: int


@dataclass(frozen=True)
class Kept:
    """What survives the filters."""

    interactions: Mask
    """[N] over the interactions as read"""
    items: Mask
    """[I] over the item table: the catalogue"""
    counts: tuple[Counts, ...]


def apply_filters(interactions: Interactions, titles: list[str], config: FilterConfig) -> Kept:
    """Apply the filters of `config` once, in the order of its fields.

    It is one pass, not a k-core: dropping users last may leave an item with fewer interactions than
    `min_item_interactions`, and such an item stays in the catalogue.

    Args:
        titles: title of each item of the item table, empty where it has none.
    """
    users, items = interactions.users, interactions.items
    kept = np.ones(len(users), dtype=np.bool_)
    catalogue = np.ones(len(titles), dtype=np.bool_)
    counts: list[Counts] = []

    def count(step: str) -> None:
        left = len(np.unique(users[kept]))
        counts.append(Counts(step, left, int(catalogue.sum()), int(kept.sum())))

    count("read")
    if config.drop_duplicates and interactions.timestamps is not None:
        kept &= first_of_each(users, items, interactions.timestamps)
        count("without exact duplicates")
    if config.require_title:
        catalogue &= np.array([bool(title) for title in titles], dtype=np.bool_)
        kept &= catalogue[items]
        count("items with a title")
    if config.min_item_interactions > 0:
        catalogue &= np.bincount(items[kept], minlength=len(titles)) >= config.min_item_interactions
        kept &= catalogue[items]
        count(f"items with {config.min_item_interactions} or more interactions")
    of_user = np.bincount(users[kept], minlength=len(interactions.user_ids))
    kept &= (of_user >= config.min_user_interactions)[users]
    count(f"users with {config.min_user_interactions} or more interactions")
    return Kept(kept, catalogue, tuple(counts))


def first_of_each(users: NDArray[np.int32], items: NDArray[np.int32], timestamps: NDArray[np.float64]) -> Mask:
    """Mark, [N], the first in file order of interactions that share user, item and time stamp."""
    order = np.lexsort((timestamps, items, users))  # stable: equal keys stay in file order
    first = np.ones(len(order), dtype=np.bool_)
    same = [np.diff(keys[order]) == 0 for keys in (users, items, timestamps)]
    first[order[1:]] = ~np.logical_and.reduce(same)
    return first
