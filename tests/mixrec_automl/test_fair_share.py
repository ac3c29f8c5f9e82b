"""Slots for several searches: equal to a literal max-min allotment, and within every limit for any shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from mixrec_automl.fair_share import Claim, Machine, allot

ONE = [Machine(4, 0)]


def claim(search: str, slots: int, *, owner: str = "", priority: int = 0, cpus: float = 1, gpus: float = 0) -> Claim:
    return Claim(search, owner or search, priority, slots, 1, cpus, gpus)


def test_two_searches_share_alike_and_the_older_one_gets_the_odd_slot() -> None:
    assert allot([claim("a", 9)], ONE) == {"a": 4}
    assert allot([claim("a", 9), claim("b", 9)], ONE) == {"a": 2, "b": 2}
    assert allot([claim("a", 9), claim("b", 9), claim("c", 9)], ONE) == {"a": 2, "b": 1, "c": 1}


def test_what_one_cannot_use_the_others_get() -> None:
    assert allot([claim("a", 9), claim("b", 1)], ONE) == {"a": 3, "b": 1}
    assert allot([claim("a", 9), claim("b", 0)], ONE) == {"a": 4, "b": 0}


def test_a_higher_priority_takes_what_it_can_use_and_the_rest_is_shared() -> None:
    claims = [claim("a", 9), claim("b", 2, priority=1), claim("c", 9), claim("d", 9, priority=-1)]
    assert allot(claims, ONE) == {"a": 1, "b": 2, "c": 1, "d": 0}


def test_an_owner_gets_no_more_than_the_quota_for_all_searches_together() -> None:
    claims = [claim("a", 9, owner="ada"), claim("b", 9, owner="ada", priority=5), claim("c", 9, owner="bob")]
    assert allot(claims, [Machine(8, 0)], quota=3) == {"a": 0, "b": 3, "c": 3}
    assert allot(claims, [Machine(8, 0)], quota=1) == {"a": 0, "b": 1, "c": 1}


def test_a_slot_needs_its_processes_on_machines_that_hold_one_each() -> None:
    """Two machines of three CPUs hold two processes of two CPUs, not three."""
    machines = [Machine(3, 0), Machine(3, 0)]
    assert allot([claim("a", 9, cpus=2)], machines) == {"a": 2}
    assert allot([replace(claim("a", 9, cpus=2), workers=2)], machines) == {"a": 1}
    assert allot([claim("a", 9, cpus=2), claim("b", 9)], machines) == {"a": 2, "b": 2}


def test_shapes_that_differ_share_what_each_needs_most_of() -> None:
    """The example of the paper on dominant resource fairness: 9 CPUs and 18 GB; a slot has (1, 4) or (3, 1)."""
    claims = [claim("a", 99, cpus=1, gpus=4), claim("b", 99, cpus=3, gpus=1)]
    assert allot(claims, [Machine(9, 18)]) == {"a": 3, "b": 2}


def test_parts_of_a_gpu_are_parts_of_one() -> None:
    assert allot([claim("a", 9, gpus=0.4)], [Machine(9, 2)]) == {"a": 4}
    assert allot([claim("a", 9, gpus=1 / 3)], [Machine(9, 1)]) == {"a": 3}
    assert allot([claim("a", 9, gpus=1)], [Machine(9, 0), Machine(9, 2)]) == {"a": 2}


def test_what_needs_no_gpu_leaves_them_to_who_does() -> None:
    machines = [Machine(2, 2), Machine(2, 0)]
    assert allot([claim("a", 2), claim("b", 2, gpus=1)], machines) == {"a": 2, "b": 2}


def test_a_cluster_without_machines_has_nothing_for_anybody() -> None:
    assert allot([claim("a", 1), claim("b", 1, gpus=1)], []) == {"a": 0, "b": 0}


# Against a literal version

CLAIMS = st.lists(
    st.builds(
        Claim,
        search=st.text(),
        owner=st.sampled_from(["ada", "bob", "eve"]),
        priority=st.integers(-1, 1),
        slots=st.integers(0, 5),
        workers=st.integers(1, 2),
        cpus=st.integers(1, 4),
        gpus=st.sampled_from([0, 0.25, 0.5, 1, 2]),
    ),
    max_size=4,
).map(lambda claims: [replace(one, search=f"s{place}") for place, one in enumerate(claims)])
ALIKE = CLAIMS.map(lambda claims: [replace(one, workers=1, cpus=1, gpus=0) for one in claims])
MACHINES = st.lists(st.builds(Machine, cpus=st.integers(0, 8), gpus=st.integers(0, 2)), max_size=3)
QUOTA = st.none() | st.integers(0, 6)


def literal(claims: Sequence[Claim], slots: int, quota: int | None) -> dict[str, int]:
    """All allotments of slots of one shape are tried: what is best is told from the rules alone.

    By priority, the highest first: the sorted allotments are as large as can be, read from the smallest one; of several
    such the older search is not behind the younger.
    """

    def of(chosen: tuple[int, ...], priority: int) -> list[int]:
        return [count for count, one in zip(chosen, claims, strict=True) if one.priority == priority]

    def is_allowed(chosen: tuple[int, ...]) -> bool:
        owned: Counter[str] = Counter()
        for count, one in zip(chosen, claims, strict=True):
            owned[one.owner] += count
        return sum(chosen) <= slots and (quota is None or max(owned.values(), default=0) <= quota)

    priorities = sorted({one.priority for one in claims}, reverse=True)
    best = max(
        filter(is_allowed, product(*(range(one.slots + 1) for one in claims))),
        key=lambda chosen: [
            (sum(of(chosen, priority)), sorted(of(chosen, priority)), of(chosen, priority)) for priority in priorities
        ],
    )
    return {one.search: count for one, count in zip(claims, best, strict=True)}


@settings(deadline=None)
@given(ALIKE, st.integers(0, 12))
def test_slots_of_one_shape_are_those_of_a_literal_max_min(claims: list[Claim], slots: int) -> None:
    assert allot(claims, [Machine(slots, 0)]) == literal(claims, slots, None)


# What holds for all shapes


@given(CLAIMS, MACHINES, QUOTA)
def test_nobody_gets_more_than_there_is_than_is_asked_for_or_than_the_quota(
    claims: list[Claim], machines: list[Machine], quota: int | None
) -> None:
    slots = allot(claims, machines, quota)
    owned: Counter[str] = Counter()
    for one in claims:
        assert 0 <= slots[one.search] <= one.slots
        owned[one.owner] += slots[one.search]
    assert quota is None or all(count <= quota for count in owned.values())
    for kind in ("cpus", "gpus"):
        used = sum(slots[one.search] * one.workers * getattr(one, kind) for one in claims)
        assert used <= sum(getattr(machine, kind) for machine in machines)


@given(CLAIMS, st.integers(0, 8), st.integers(0, 2), QUOTA)
def test_nothing_that_somebody_could_use_is_left(claims: list[Claim], cpus: int, gpus: int, quota: int | None) -> None:
    """On one machine, where what fits is told by sums."""
    slots = allot(claims, [Machine(cpus, gpus)], quota)
    left = {
        kind: offered - sum(slots[one.search] * one.workers * getattr(one, kind) for one in claims)
        for kind, offered in (("cpus", cpus), ("gpus", gpus))
    }
    for one in claims:
        owned = sum(slots[other.search] for other in claims if other.owner == one.owner)
        if slots[one.search] < one.slots and (quota is None or owned < quota):
            assert any(one.workers * getattr(one, kind) > left[kind] for kind in left), one


@given(ALIKE, st.integers(0, 12), QUOTA)
def test_of_equal_priority_and_shape_none_is_two_slots_behind(
    claims: list[Claim], slots: int, quota: int | None
) -> None:
    got = allot(claims, [Machine(slots, 0)], quota)
    for one, other in product(claims, claims):
        owned = sum(got[mate.search] for mate in claims if mate.owner == one.owner)
        is_held_back = got[one.search] < one.slots and (quota is None or owned < quota)
        if is_held_back and one.priority >= other.priority:
            assert got[one.search] >= got[other.search] - (one.priority == other.priority)
            assert one.priority == other.priority or got[other.search] == 0


@given(ALIKE, st.integers(0, 12), QUOTA, st.data())
def test_a_higher_priority_never_costs_a_slot(
    claims: list[Claim], slots: int, quota: int | None, data: st.DataObject
) -> None:
    if not claims:
        return
    place = data.draw(st.integers(0, len(claims) - 1))
    got = []
    for priority in (-2, -1, 0, 1, 2):
        claims[place] = replace(claims[place], priority=priority)
        got.append(allot(claims, [Machine(slots, 0)], quota)[claims[place].search])
    for lower, higher in pairwise(got):
        assert lower <= higher
