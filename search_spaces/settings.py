"""A few settings with two or four values each, as bits: what a search over bits needs to tune any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

Value = float | int | bool


@dataclass(frozen=True)
class Choice:
    """One setting."""

    key: str
    values: tuple[Value, ...]
    """Two or four, in their order"""
    default: Value
    """One of them: its bits are zero"""

    def __post_init__(self) -> None:
        if len(self.values) not in (2, 4) or len(set(self.values)) != len(self.values):
            raise ValueError(f"{self.key}: give two or four distinct values, not {self.values}")
        if self.default not in self.values:
            raise ValueError(f"{self.key}: the default {self.default} is none of {self.values}")

    @property
    def num_bits(self) -> int:
        return len(self.values).bit_length() - 1

    @property
    def codes(self) -> tuple[tuple[int, ...], ...]:
        """Bits of each value: a Gray code, so that neighbours differ in one bit, shifted so that the default has none.

        >>> Choice("rate", (1, 2, 3, 4), default=2).codes
        ((0, 1), (0, 0), (1, 0), (1, 1))
        """
        own = self.values.index(self.default)
        shifted = [(place ^ place >> 1) ^ (own ^ own >> 1) for place in range(len(self.values))]
        return tuple(tuple(code >> bit & 1 for bit in reversed(range(self.num_bits))) for code in shifted)


@dataclass(frozen=True)
class SettingsSpace:
    """All combinations of some choices."""

    choices: tuple[Choice, ...]

    @property
    def num_bits(self) -> int:
        return sum(choice.num_bits for choice in self.choices)

    def settings(self, bits: Sequence[int]) -> dict[str, Value]:
        """Setting -> value. Raises ValueError for another number of bits, or a bit that is none."""
        if len(bits) != self.num_bits:
            raise ValueError(f"expected {self.num_bits} bits, got {len(bits)}")
        found, first = {}, 0
        for choice in self.choices:
            code = tuple(bits[first : first + choice.num_bits])
            found[choice.key] = choice.values[choice.codes.index(code)]
            first += choice.num_bits
        return found

    def label(self, bits: Sequence[int]) -> str:
        """For people, and one of a kind: `learning_rate=0.001 dropout=0.5`."""
        return " ".join(f"{key}={value:g}" for key, value in self.settings(bits).items())

    @cached_property
    def by_label(self) -> dict[str, tuple[int, ...]]:
        """Label -> bits, of all designs."""
        return {self.label(bits): bits for bits in self.designs()}

    def designs(self) -> Iterator[tuple[int, ...]]:
        """All bit strings, the defaults first."""
        return product((0, 1), repeat=self.num_bits)
