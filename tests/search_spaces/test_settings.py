"""Settings as bits: every combination once, neighbours one bit apart, the defaults at zero."""

from __future__ import annotations

from itertools import pairwise

import pytest

from search_spaces.settings import Choice, SettingsSpace

RATE = Choice("rate", (0.1, 0.2, 0.3, 0.4), default=0.2)
DEEP = Choice("deep", (False, True), default=True)
SPACE = SettingsSpace((RATE, DEEP))


@pytest.mark.parametrize("default", RATE.values)
def test_neighbours_differ_in_one_bit_and_the_default_has_none(default: float) -> None:
    codes = Choice("rate", RATE.values, default=default).codes
    assert len(set(codes)) == 4
    assert codes[RATE.values.index(default)] == (0, 0)
    for left, right in pairwise(codes):
        assert sum(a != b for a, b in zip(left, right, strict=True)) == 1


def test_all_combinations_are_there_once() -> None:
    designs = list(SPACE.designs())
    assert designs[0] == (0, 0, 0)
    assert SPACE.settings(designs[0]) == {"rate": 0.2, "deep": True}
    assert {tuple(SPACE.settings(bits).items()) for bits in designs} == {
        (("rate", rate), ("deep", deep)) for rate in RATE.values for deep in DEEP.values
    }
    assert len({SPACE.label(bits) for bits in designs}) == SPACE.num_bits**2 - 1 == 8
    assert SPACE.label((0, 0, 1)) == "rate=0.2 deep=0"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="two or four distinct values"):
        Choice("rate", (1, 2, 3), default=1)
    with pytest.raises(ValueError, match="two or four distinct values"):
        Choice("rate", (1, 1), default=1)
    with pytest.raises(ValueError, match="is none of"):
        Choice("rate", (1, 2), default=3)
    with pytest.raises(ValueError, match="expected 3 bits, got 2"):
        SPACE.settings((0, 0))
