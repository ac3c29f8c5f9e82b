"""Designs: an architecture with settings."""

from __future__ import annotations

from search_spaces.architecture import Architecture
from search_spaces.design import Design, shown

SERIAL = Architecture.parse("000-000")


def test_designs_are_told_apart_by_their_settings() -> None:
    small, large = (Design.of(SERIAL, {"model.bottleneck": width}) for width in (16, 64))
    assert len({small, large, Design(SERIAL), Design.of(SERIAL, {"model.bottleneck": 16})}) == 3


def test_the_order_in_which_settings_are_given_says_nothing() -> None:
    one, other = Design.of(SERIAL, {"a": 1, "b": None}), Design.of(SERIAL, {"b": None, "a": 1})
    assert (one, hash(one)) == (other, hash(other))


def test_people_read_short_numbers() -> None:
    design = Design.of(SERIAL, {"training.learning_rate": 0.00123456, "model.bottleneck": 16})
    assert str(design) == "000-000 model.bottleneck=16 training.learning_rate=0.001235"
    assert str(Design(SERIAL)) == "000-000"
    assert [shown(value) for value in (True, None, "lora", 3, 0.5)] == ["true", "empty", "lora", "3", "0.5"]
