"""Architectures of a DAMoE network and their bit strings (paper, section 2.3.3).

A DAMoE layer has three adapters, each serial or parallel; L layers make 3L bits. The bits of one layer are, in
this order, (causal expert, context expert, recommendation adapter), layers from the input up; 0 is serial and 1
is parallel (ruling in section 4 of our digest of the paper).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

SITES = ("causal expert", "context expert", "recommendation adapter")
BITS_PER_LAYER = len(SITES)


class Placement(IntEnum):
    """Where an adapter sits relative to the frozen module `F` that it adapts (paper, Appendix D)."""

    SERIAL = 0
    """`Adapter(F(h))`."""
    PARALLEL = 1
    """`(F(h) + Adapter(h)) / 2`."""


@dataclass(frozen=True)
class LayerDesign:
    """The three placements of one DAMoE layer."""

    causal_expert: Placement
    context_expert: Placement
    recommendation_adapter: Placement

    @property
    def bits(self) -> tuple[int, int, int]:
        return int(self.causal_expert), int(self.context_expert), int(self.recommendation_adapter)


@dataclass(frozen=True)
class Architecture:
    """One design of the whole network: a `LayerDesign` for each DAMoE layer, from the input up."""

    layers: tuple[LayerDesign, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("an architecture needs at least one DAMoE layer")

    @property
    def bits(self) -> tuple[int, ...]:
        """The 3L bits z of the paper."""
        return tuple(bit for layer in self.layers for bit in layer.bits)

    @classmethod
    def from_bits(cls, bits: Sequence[int]) -> Architecture:
        """Inverse of `bits`.

        Raises:
            ValueError: the number of bits is no positive multiple of three, or a bit is neither 0 nor 1.
        """
        if len(bits) == 0 or len(bits) % BITS_PER_LAYER:
            raise ValueError(f"expected 3 bits a layer, got {len(bits)} bits")
        if any(bit not in (0, 1) for bit in bits):
            raise ValueError(f"bits must be 0 or 1, got {list(bits)}")
        placements = [Placement(int(bit)) for bit in bits]
        return cls(
            tuple(
                LayerDesign(*placements[first : first + BITS_PER_LAYER])
                for first in range(0, len(placements), BITS_PER_LAYER)
            )
        )

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the form that `str` writes, e.g. ``"010-111"``; the dashes are optional.

        Raises:
            ValueError: `text` holds anything but 0, 1 and dashes, or no multiple of three bits.
        """
        compact = text.strip().replace("-", "")
        if not compact or set(compact) - {"0", "1"}:
            raise ValueError(f"an architecture is written in 0 and 1, three a layer, as in 010-111; got {text!r}")
        return cls.from_bits([int(character) for character in compact])

    @classmethod
    def uniform(cls, placement: Placement, num_layers: int) -> Architecture:
        """The same placement everywhere: all-serial is the fixed design of the paper's Variation 2."""
        return cls((LayerDesign(placement, placement, placement),) * num_layers)

    def __str__(self) -> str:
        return "-".join("".join(map(str, layer.bits)) for layer in self.layers)


def distance(left: Architecture, right: Architecture) -> int:
    """Number of adapters whose placement differs (Hamming distance of the bits)."""
    return sum(a != b for a, b in zip(left.bits, right.bits, strict=True))


def as_bit_rows(architectures: Iterable[Architecture]) -> list[list[int]]:
    """Designs as a plain [number of designs, 3L] list, ready for an array."""
    return [list(architecture.bits) for architecture in architectures]
