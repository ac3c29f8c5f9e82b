"""The search space of the paper: {0,1}^(3L), with L set by backbone depth and replacement frequency (2.3.3, 3.6)."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.architecture import BITS_PER_LAYER, Architecture, Placement


@dataclass(frozen=True)
class DamoeSpace:
    """All designs of a backbone with `backbone_layers` layers, every `replacement_frequency`-th of them DAMoE."""

    backbone_layers: int
    replacement_frequency: int = 1

    def __post_init__(self) -> None:
        if self.backbone_layers < 1:
            raise ValueError(f"a backbone has at least one layer, got {self.backbone_layers}")
        if not 1 <= self.replacement_frequency <= self.backbone_layers:
            raise ValueError(
                f"replacement frequency r must lie between 1 and the number of backbone layers "
                f"({self.backbone_layers}), got {self.replacement_frequency}"
            )

    @property
    def damoe_layers(self) -> tuple[int, ...]:
        """Zero-based indices of the replaced layers: layers r, 2r, 3r, ... counted from the input."""
        step = self.replacement_frequency
        return tuple(range(step - 1, self.backbone_layers, step))

    @property
    def num_bits(self) -> int:
        return BITS_PER_LAYER * len(self.damoe_layers)

    @property
    def size(self) -> int:
        """Number of designs: 2^(3L)."""
        return 1 << self.num_bits

    @property
    def fixed_design(self) -> Architecture:
        """All-serial: the paper's Variation 2 and the first design of every search."""
        return Architecture.uniform(Placement.SERIAL, len(self.damoe_layers))

    def check(self, architecture: Architecture) -> None:
        """Raises ValueError where `architecture` has another number of DAMoE layers than this space."""
        expected, got = len(self.damoe_layers), len(architecture.layers)
        if got != expected:
            raise ValueError(
                f"{architecture} has {got} DAMoE layers, but a backbone of {self.backbone_layers} layers with "
                f"r={self.replacement_frequency} has {expected}: give {BITS_PER_LAYER * expected} bits"
            )
