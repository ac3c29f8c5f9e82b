"""Designs of a space as rows that a Gaussian process reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixrec_automl.search.budgets import Cost
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.kernels import Columns
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.suggestion import relaxation_of
from search_spaces.architecture import BITS_PER_LAYER, as_bit_rows
from search_spaces.design import Design


@dataclass(frozen=True)
class Encoding:
    """How designs become rows."""

    columns: Columns
    """Of a row"""
    rows_of: Callable[[Sequence[Design]], Tensor]
    """[designs, n]"""


def of_bits(bits: int) -> Encoding:
    """Of architectures alone."""
    return Encoding(Columns(bits, bits_per_layer=BITS_PER_LAYER), bits_of)


def of_settings(space: DesignSpace) -> Encoding:
    """Of architectures and settings."""
    relaxation = relaxation_of(space.mixed)
    return Encoding(relaxation.columns, lambda designs: relaxation.features(points_of(space, designs)))


def cost_of_rows(space: DesignSpace, cost: KnownCost | None) -> Cost | None:
    """`cost` of the rows of `of_settings`; None where there is none."""
    return None if cost is None else cost.over(space.mixed, relaxation_of(space.mixed))


def bits_of(designs: Iterable[Design]) -> Tensor:
    """[designs, bits]"""
    return torch.tensor(as_bit_rows(design.architecture for design in designs), dtype=torch.float64)


def points_of(space: DesignSpace, designs: Sequence[Design]) -> Tensor:
    """As `relaxation_of(space.mixed)` has them, [designs, D]."""
    rows = [space.mixed.levels(space.setting(design)) for design in designs]
    return torch.tensor(rows, dtype=torch.float64)
