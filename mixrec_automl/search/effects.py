"""What each bit of a design is worth, and which two do more together than apart, by the surrogate of a search.

Intervals hold for all effects of one kind at once (Bonferroni): the largest of many is large by chance too.

The effect of a bit is the surrogate's mean difference between designs with it and the same designs without it, over
designs drawn uniformly; the effect of a pair is that of one bit with the other, less that without it. Both are linear
in the unknown function, so the Gaussian process gives their joint normal distribution in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import torch
from torch import Tensor

from mixrec_automl.search.surrogate import DesignSurrogate

LEVEL = 0.95
DESIGNS, DESIGNS_OF_PAIRS = 128, 32
"""Drawn for a bit and for a pair; all designs where there are no more"""


@dataclass(frozen=True)
class Effect:
    """In MRR."""

    bits: tuple[int, ...]
    """One, or two that act together"""
    mean: float
    low: float
    high: float
    """Ends of the interval, which holds for all effects of its kind at once with probability `LEVEL`"""

    @property
    def is_sure(self) -> bool:
        return self.low > 0 or self.high < 0


def effects_of_bits(surrogate: DesignSurrogate, bits: int, seed: int = 0) -> list[Effect]:
    """Of each bit, in their order.

    Args:
        surrogate: on rows of `bits` bits and nothing else.
        seed: of the designs that are drawn.
    """
    return [_effect(surrogate, (bit,), _designs(bits, DESIGNS, seed), bits) for bit in range(bits)]


def effects_of_pairs(surrogate: DesignSurrogate, bits: int, seed: int = 0) -> list[Effect]:
    """Of each pair of bits, the largest first. Arguments as `effects_of_bits`."""
    designs = _designs(bits, DESIGNS_OF_PAIRS, seed)
    pairs = list(combinations(range(bits), 2))
    return sorted(
        (_effect(surrogate, pair, designs, len(pairs)) for pair in pairs), key=lambda effect: -abs(effect.mean)
    )


def _designs(bits: int, most: int, seed: int) -> Tensor:
    """[designs, bits]"""
    if 2**bits <= most:
        return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * bits).reshape(-1, bits)
    drawn = torch.rand(most, bits, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn < 0.5).to(torch.float64)


def half_width(compared: int) -> float:
    """In standard deviations, of intervals that hold for `compared` effects at once."""
    return NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * compared))


def _effect(surrogate: DesignSurrogate, bits: tuple[int, ...], designs: Tensor, compared: int) -> Effect:
    rows, weights = designs, torch.full((len(designs),), 1 / len(designs), dtype=torch.float64)
    for bit in bits:
        with_it, without = rows.clone(), rows.clone()
        with_it[:, bit], without[:, bit] = 1.0, 0.0
        rows, weights = torch.cat([with_it, without]), torch.cat([weights, -weights])
    rows, places = torch.unique(rows, dim=0, return_inverse=True)
    weights = torch.zeros(len(rows), dtype=torch.float64).index_add(0, places, weights)
    with torch.no_grad():
        posterior = surrogate.posterior(rows)
        mean = float(weights @ posterior.mean[:, 0])
        variance = float(weights @ posterior.covariance_matrix @ weights)
    half = half_width(compared) * max(variance, 0.0) ** 0.5
    return Effect(bits, mean, mean - half, mean + half)
