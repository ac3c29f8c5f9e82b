"""Spaces of parameters of several kinds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.mixed import Categorical, Condition, Integer, MixedSpace, Ordinal, Parameter, Real, Value

SPACE = MixedSpace(
    (
        Categorical("adapter", ("bottleneck", "lora", "none")),
        Categorical("is_joint", (False, True)),
        Integer("width", 16, 128, step=16),
        Real("rate", 1e-5, 1e-2, log=True),
        Real("dropout", 0.0, 0.5),
    ),
    constraints=(lambda setting: setting["adapter"] != "none" or setting["width"] == 16,),
)


@given(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 7), st.floats(0, 1), st.floats(0, 1)),
)
def test_levels_and_settings_are_inverse(levels: tuple[float, ...]) -> None:
    setting = SPACE.setting(levels)
    assert SPACE.levels(setting) == pytest.approx(levels, abs=1e-9)
    for own in SPACE.parameters:
        if isinstance(own, Integer | Real):
            value = setting[own.name]
            assert isinstance(value, int | float)
            assert own.low <= value <= own.high


def test_a_logarithmic_scale_has_equal_ratios() -> None:
    rate = Real("rate", 1e-4, 1e-2, log=True)
    assert rate.value(0.5) == pytest.approx(1e-3)
    assert math.isclose(rate.value(0.25) / rate.value(0.0), rate.value(1.0) / rate.value(0.75))


def test_the_last_step_of_an_integer_does_not_pass_its_end() -> None:
    odd = Integer("layers", 1, 6, step=2)
    assert [odd.value(level) for level in range(odd.levels)] == [1, 3, 5]


def test_a_dense_integer_is_a_rounded_real_one() -> None:
    dense = Integer("tokens", 10, 1010, step=10)
    assert dense.is_dense
    assert [dense.value(level) for level in (0.0, 0.504, 1.0)] == [10, 510, 1010]
    assert all(dense.value(dense.level(value)) == value for value in range(10, 1011, 10))


def test_constraints_are_asked_with_values() -> None:
    assert SPACE.allows(SPACE.setting([2, 0, 0, 0.5, 0.5]))
    assert not SPACE.allows(SPACE.setting([2, 0, 1, 0.5, 0.5]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"adapter": "gelu"}, "adapter: 'gelu' is none of"),
        ({"is_joint": 1}, "is_joint: 1 is none of"),
        ({"width": 24}, "width: 24 is none of 16 to 128 in steps of 16"),
        ({"width": True}, "width: True is no number"),
        ({"rate": 0.1}, "rate: 0.1 is not between"),
        ({"dropout": "0.1"}, "dropout: '0.1' is no number"),
    ],
)
def test_a_value_outside_of_the_space_is_named(wrong: dict[str, object], told: str) -> None:
    setting = {**SPACE.setting([0, 0, 0, 0.5, 0.5]), **wrong}
    with pytest.raises(ValueError, match=told):
        SPACE.levels(setting)  # type: ignore[arg-type]


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match="no value is given for width, dropout"):
        SPACE.levels({"adapter": "none", "is_joint": True, "rate": 1e-3})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Categorical("x", ("a",)),
        lambda: Categorical("x", ("a", "a")),
        lambda: Ordinal("x", (1,)),
        lambda: Ordinal("x", (2, 1)),
        lambda: Ordinal("x", (1, 1.0)),
        lambda: Integer("x", 3, 3),
        lambda: Integer("x", 0, 4, step=5),
        lambda: Real("x", 1.0, 1.0),
        lambda: Real("x", 0.0, 1.0, log=True),
        lambda: Real("x", 0.0, float("inf")),
        lambda: MixedSpace(()),
        lambda: MixedSpace((Real("x", 0, 1), Integer("x", 0, 1))),
    ],
)
def test_what_is_no_space_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"x:|a space needs"):
        make()  # type: ignore[operator]


def test_an_ordinal_parameter_knows_the_order_of_its_values_alone() -> None:
    widths = Ordinal("width", (16, 64, 65))
    assert [widths.level(widths.value(level)) for level in range(widths.levels)] == [0, 1, 2]
    for wrong in (17, True, "16", None):
        with pytest.raises(ValueError, match="width: "):
            widths.level(wrong)


@pytest.mark.parametrize(
    ("parameter", "value", "nearest"),
    [
        (Categorical("x", ("a", "b")), "b", "b"),
        (Categorical("x", ("a", "b")), "c", "a"),
        (Categorical("x", (1, True)), True, True),
        (Ordinal("x", (16, 32, 64)), 40, 32),
        (Ordinal("x", (16, 32, 64)), 1000, 64),
        (Ordinal("x", (16, 32, 64)), None, 16),
        (Integer("x", 2, 9, step=3), 6, 5),
        (Integer("x", 2, 9, step=3), 100, 8),
        (Integer("x", 0, 1000), 7, 7),
        (Integer("x", 2, 9), "many", 2),
        (Real("x", 0.1, 1.0), 0.3, 0.3),
        (Real("x", 0.1, 1.0, log=True), 7, 1.0),
        (Real("x", 0.1, 1.0), False, 0.1),
    ],
)
def test_the_nearest_value_is_one_of_the_parameters(parameter: Parameter, value: Value, nearest: Value) -> None:
    found = parameter.nearest(value)
    assert (found, type(found)) == (nearest, type(nearest))
    assert parameter.value(parameter.level(found)) == pytest.approx(nearest)


@pytest.mark.parametrize(
    "conditions",
    [
        (Condition("z", "x", ("a",)),),
        (Condition("x", "z", ("a",)),),
        (Condition("x", "y", (0,)), Condition("y", "x", ("a",))),
    ],
)
def test_conditions_name_parameters_and_do_not_chain(conditions: tuple[Condition, ...]) -> None:
    with pytest.raises(ValueError, match="a condition names two parameters"):
        MixedSpace((Categorical("x", ("a", "b")), Categorical("y", (0, 1))), conditions=conditions)


def test_equal_numbers_of_two_types_are_two_values() -> None:
    both = Categorical("x", (1, True, None))
    assert [both.level(value) for value in (1, True, None)] == [0.0, 1.0, 2.0]
