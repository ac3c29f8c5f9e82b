"""Search spaces of parameters of several kinds, and constraints between them. Plain Python.

A *level* is a parameter's value as a search method sees it: 0, 1, 2, ... of a categorical one (without an order) and of
an ordinal or integer one (with an order), a number in [0, 1] of a real one and of an integer one with very many values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Value = str | float | int | bool | None
Setting = Mapping[str, Value]
"""A value for each parameter."""
MOST_LEVELS = 32
"""An integer parameter with more values is dense: to a search method it is a real one, and rounded."""


@dataclass(frozen=True)
class Categorical:
    """One of some values that have no order; two of them make a bit."""

    name: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len({(type(value), value) for value in self.values}) != len(self.values):
            raise ValueError(f"{self.name}: give at least two values, all different, not {self.values}")

    def value(self, level: float) -> Value:
        return self.values[round(level)]

    def level(self, value: Value) -> float:
        """Raises ValueError where `value` is none of the parameter's."""
        for place, own in enumerate(self.values):
            if type(own) is type(value) and own == value:
                return float(place)
        raise ValueError(f"{self.name}: {value!r} is none of {self.values}")

    def nearest(self, value: Value) -> Value:
        """`value` where it is one of the parameter's, else the first of those."""
        return next((own for own in self.values if type(own) is type(value) and own == value), self.values[0])


@dataclass(frozen=True)
class Ordinal:
    """One of some numbers, in increasing order; neighbours are equally far apart, whatever lies between them."""

    name: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or any(left >= right for left, right in pairwise(self.values)):
            raise ValueError(f"{self.name}: give at least two numbers in increasing order, not {self.values}")

    @property
    def levels(self) -> int:
        return len(self.values)

    def value(self, level: float) -> float:
        return self.values[round(level)]

    def level(self, value: Value) -> float:
        """Raises ValueError where `value` is none of the parameter's."""
        if isinstance(value, bool) or value not in self.values:
            raise ValueError(f"{self.name}: {value!r} is none of {self.values}")
        return float(self.values.index(value))

    def nearest(self, value: Value) -> float:
        """The number closest to `value`; the lowest one where that is no number."""
        wanted = _number(value, self.values[0])
        return min(self.values, key=lambda own: abs(own - wanted))


@dataclass(frozen=True)
class Integer:
    """low, low + step, ..., up to high."""

    name: str
    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1 or self.low + self.step > self.high:
            raise ValueError(f"{self.name}: {self.low} to {self.high} in steps of {self.step} are not two values")

    @property
    def levels(self) -> int:
        return (self.high - self.low) // self.step + 1

    @property
    def is_dense(self) -> bool:
        return self.levels > MOST_LEVELS

    def value(self, level: float) -> int:
        return self.low + self.step * round(level * (self.levels - 1) if self.is_dense else level)

    def level(self, value: Value) -> float:
        """Raises ValueError where `value` is none of the parameter's."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.name}: {value!r} is no number")
        level = (value - self.low) / self.step
        if level != int(level) or not 0 <= level < self.levels:
            raise ValueError(f"{self.name}: {value!r} is none of {self.low} to {self.high} in steps of {self.step}")
        return level / (self.levels - 1) if self.is_dense else level

    def nearest(self, value: Value) -> int:
        """The one closest to `value`; the lowest one where that is no number."""
        steps = round((_number(value, self.low) - self.low) / self.step)
        return self.low + self.step * min(max(steps, 0), self.levels - 1)


@dataclass(frozen=True)
class Real:
    """Any number from low to high."""

    name: str
    low: float
    high: float
    log: bool = False
    """Whether equal ratios, not equal differences, are equally far apart."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            raise ValueError(f"{self.name}: {self.low} is not below {self.high}, or one of them is not finite")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name}: a logarithmic scale needs a lower end above zero, not {self.low}")

    def value(self, level: float) -> float:
        if self.log:
            found = math.exp(math.log(self.low) + level * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + level * (self.high - self.low)
        return min(max(found, self.low), self.high)

    def level(self, value: Value) -> float:
        """Raises ValueError where `value` is outside of the parameter's range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.name}: {value!r} is no number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name}: {value!r} is not between {self.low} and {self.high}")
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def nearest(self, value: Value) -> float:
        """The one closest to `value`; the lowest one where that is no number."""
        return min(max(_number(value, self.low), self.low), self.high)


def _number(value: Value, otherwise: float) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


Parameter = Categorical | Ordinal | Integer | Real
Constraint = Callable[[Setting], bool]
"""Whether a setting may be tried."""


@dataclass(frozen=True)
class Condition:
    """Parameter `name` counts only where parameter `parent` has one of `values`; elsewhere it stays at its level 0."""

    name: str
    parent: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class MixedSpace:
    """All settings of some parameters that meet all constraints.

    A parameter with several conditions counts where all of them hold. Settings that differ in what does not count alone
    are one setting to a search method.

    >>> space = MixedSpace((Categorical("adapter", ("lora", "none")), Real("rate", 1e-4, 1e-2, log=True)))
    >>> space.setting([0, 0.5])
    {'adapter': 'lora', 'rate': 0.001}
    """

    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a space needs parameters, each with a name of its own, not {names}")
        children = {condition.name for condition in self.conditions}
        for condition in self.conditions:
            if condition.name not in names or condition.parent not in set(names) - children:
                raise ValueError(f"{condition}: a condition names two parameters, and its parent has none itself")

    def setting(self, levels: Sequence[float]) -> dict[str, Value]:
        """The values that `levels`, one for each parameter, mean."""
        return {own.name: own.value(level) for own, level in zip(self.parameters, levels, strict=True)}

    def levels(self, setting: Setting) -> list[float]:
        """Inverse of `setting`. Raises ValueError for a value that a parameter cannot have, or one that is missing."""
        missing = [own.name for own in self.parameters if own.name not in setting]
        if missing:
            raise ValueError(f"no value is given for {', '.join(missing)}")
        return [own.level(setting[own.name]) for own in self.parameters]

    def allows(self, setting: Setting) -> bool:
        return all(constraint(setting) for constraint in self.constraints)
