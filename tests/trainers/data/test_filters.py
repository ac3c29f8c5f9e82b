"""The filters against a literal version on Python lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.config import FilterConfig
from trainers.data.filters import Counts, apply_filters, first_of_each
from trainers.data.tables import Interactions

USERS, ITEMS = 3, 4
Event = tuple[int, int, float]
EVENTS = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.sampled_from([0.0, 1.0])),
    min_size=8,
    max_size=40,
)
TITLES = st.lists(st.sampled_from(["", "x"]), min_size=ITEMS, max_size=ITEMS)
CONFIGS = st.builds(
    FilterConfig,
    drop_duplicates=st.booleans(),
    require_title=st.booleans(),
    min_item_interactions=st.integers(0, 5),
    min_user_interactions=st.integers(3, 5),
)


def literal(
    events: list[Event], titles: list[str], config: FilterConfig, timed: bool
) -> tuple[list[int], set[int], list[Counts]]:
    """Indices of kept interactions, kept items, counts: one plain loop a step."""
    left = list(enumerate(events))
    catalogue = set(range(ITEMS))
    counts = []

    def count(step: str) -> None:
        counts.append(Counts(step, len({user for _, (user, _, _) in left}), len(catalogue), len(left)))

    count("read")
    if config.drop_duplicates and timed:
        left = [(n, event) for n, event in left if event not in events[:n]]
        count("without exact duplicates")
    if config.require_title:
        catalogue = {item for item in catalogue if titles[item] != ""}
        left = [(n, event) for n, event in left if event[1] in catalogue]
        count("items with a title")
    if config.min_item_interactions:
        popularity = Counter(event[1] for _, event in left)
        catalogue = {item for item in catalogue if popularity[item] >= config.min_item_interactions}
        left = [(n, event) for n, event in left if event[1] in catalogue]
        count(f"items with {config.min_item_interactions} or more interactions")
    activity = Counter(event[0] for _, event in left)
    left = [(n, event) for n, event in left if activity[event[0]] >= config.min_user_interactions]
    count(f"users with {config.min_user_interactions} or more interactions")
    return [n for n, _ in left], catalogue, counts


@settings(max_examples=300, deadline=None)
@given(EVENTS, TITLES, CONFIGS, st.booleans())
def test_filters_equal_the_literal_version(
    events: list[Event], titles: list[str], config: FilterConfig, timed: bool
) -> None:
    users, items, times = zip(*events, strict=True)
    table = Interactions(
        Path("events"),
        np.array(users, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.array(times) if timed else None,
        [f"u{n}" for n in range(USERS)],
    )
    kept = apply_filters(table, titles, config)
    interactions, catalogue, counts = literal(events, titles, config, timed)
    assert np.flatnonzero(kept.interactions).tolist() == interactions
    assert set(np.flatnonzero(kept.items).tolist()) == catalogue
    assert list(kept.counts) == counts


@given(EVENTS)
def test_of_exact_duplicates_the_first_in_the_file_stays(events: list[Event]) -> None:
    users, items, times = zip(*events, strict=True)
    first = first_of_each(np.array(users, dtype=np.int32), np.array(items, dtype=np.int32), np.array(times))
    assert first.tolist() == [event not in events[:n] for n, event in enumerate(events)]
