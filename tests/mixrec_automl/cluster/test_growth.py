"""When a training of too few processes makes way for one of more; what Ray tells of the machines is made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mixrec_automl.cluster import growth, ray_session
from mixrec_automl.cluster.growth import SETTLE_SECONDS, Growth
from mixrec_automl.search_config import ClusterConfig

Set = Callable[[int, int], None]


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets how many processes the machines hold, and for how many there is room beside all that runs."""

    def set_room(room: int, spare: int) -> None:
        monkeypatch.setattr(growth, "room", lambda *_: room)
        monkeypatch.setattr(growth, "spare", lambda *_: spare)

    return set_room


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def is_due_after(up: int) -> float | None:
    """Seconds until a training of 4 with `up` processes makes way; None: never."""
    clock = Clock()
    grown = Growth(ClusterConfig(slots=1, workers_per_trial=4, cpus_per_worker=2), clock)
    for clock.now in range(int(4 * SETTLE_SECONDS)):
        grown.look(up)
        if grown.is_due():
            return clock.now
    return None


@pytest.mark.parametrize(
    ("up", "room", "spare", "is_due"),
    [
        (2, 4, 2, True),
        (2, 3, 1, True),  # not all, but more
        (2, 9, 7, True),
        (4, 9, 5, False),  # it has all that it asked for
        (2, 2, 0, False),
        (2, 4, 1, False),  # Ray would start four, and one would wait
        (2, 3, 0, False),
        (0, 4, 4, False),  # it is coming up
    ],
)
def test_it_makes_way_where_all_that_ray_would_start_are_free(
    have: Set, up: int, room: int, spare: int, is_due: bool
) -> None:
    have(room, spare)
    assert is_due_after(up) == (SETTLE_SECONDS if is_due else None)


def test_room_that_goes_again_is_none(have: Set) -> None:
    clock = Clock()
    grown = Growth(ClusterConfig(slots=1, workers_per_trial=2), clock)
    for clock.now in range(int(3 * SETTLE_SECONDS)):
        have(2, int(clock.now) % 20 != 0)
        grown.look(1)
        assert not grown.is_due()


def test_where_ray_starts_no_more_the_next_try_comes_later_each_time(have: Set) -> None:
    have(2, 1)
    clock = Clock()
    grown = Growth(ClusterConfig(slots=1, workers_per_trial=2), clock)
    tries = []
    for clock.now in range(int(8 * SETTLE_SECONDS)):
        grown.look(1)
        if grown.is_due():
            tries.append(clock.now)
    assert [round(later - before) for later, before in zip(tries, [0, *tries], strict=False)] == [30, 61, 121]


def test_what_is_spare_is_counted_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": {"CPU": 3.0, "GPU": 1.0}, "b": {"CPU": 1.0}, "c": {"CPU": 2.0, "GPU": 0.5}, "d": {}}
    monkeypatch.setattr(ray_session, "available_resources_per_node", lambda: nodes)
    assert ray_session.spare(1, 0) == 6
    assert ray_session.spare(2, 0) == 2, "what is left on two nodes is no place for one process"
    assert ray_session.spare(1, 1) == 1
