"""A second objective that is known without an evaluation, the cost of a design: the best outcome for every budget.

With costs from 0 to 1, take the best outcome among the designs that cost at most c, where that is above a reference,
and average it over all budgets c in [0, 1]: less the reference, this is the hypervolume of the Pareto front (Zitzler
and Thiele, 1998), with 1 as its reference cost. As it is a weighted sum of maxima, one for each step between two costs,
whatever has a closed form for a maximum has one for the hypervolume: expected improvement (`hypervolume.py`) and
knowledge gradient (`replication.py`).

Shapes: n designs, k steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
"""Designs as rows that a Gaussian process reads, [any, n] -> their costs in [0, 1], [any]"""


@dataclass(frozen=True)
class Budgets:
    """The steps that some designs divide the budgets into: within a step the same designs can be afforded."""

    costs: Tensor
    """Of the designs, [n]"""
    reference: Tensor
    """The outcome that counts as nothing, []"""

    @cached_property
    def starts(self) -> Tensor:
        """The smallest budget of each step, ascending, [k]; nothing need be affordable in the first one."""
        found: Tensor = torch.unique(torch.cat([self.costs.new_zeros(1), self.costs]))
        return found

    @cached_property
    def widths(self) -> Tensor:
        """[k], of sum one."""
        return torch.cat([self.starts[1:], self.costs.new_ones(1)]) - self.starts

    @cached_property
    def affordable(self) -> Tensor:
        """Which designs are within each step, bool [k, n]."""
        return self.costs <= self.starts[:, None]

    def best(self, values: Tensor) -> Tensor:
        """The best of `values` [..., n], or the reference where none is above that, within each step: [..., k]."""
        within = values[..., None, :].masked_fill(~self.affordable, -torch.inf)
        found: Tensor = within.amax(dim=-1).maximum(self.reference)
        return found

    def hypervolume(self, values: Tensor) -> Tensor:
        """[..., n] -> [...]"""
        found: Tensor = (self.widths * (self.best(values) - self.reference)).sum(dim=-1)
        return found


def by_contribution(means: Tensor, costs: Tensor, reference: Tensor) -> list[int]:
    """The designs of which the first few give the most hypervolume: the best one, then greedily whichever adds most;
    those that add nothing last, the best first.

    Args:
        means: posterior means, [n].
        costs: [n].
        reference: as `Budgets.reference`.
    """
    left = means.argsort(descending=True, stable=True).tolist()
    chosen, left = left[:1], left[1:]
    while adding := [one for one in left if _adds(one, chosen, means, costs, reference)]:
        sets = [[*chosen, one] for one in adding]
        volumes = torch.stack([Budgets(costs[own], reference).hypervolume(means[own]) for own in sets])
        chosen.append(adding[int(volumes.argmax())])
        left.remove(chosen[-1])
    return chosen + left


def _adds(one: int, chosen: list[int], means: Tensor, costs: Tensor, reference: Tensor) -> bool:
    """Whether a design is the best that it can be compared with, asked exactly: volumes are equal up to rounding."""
    others = [means[own] for own in chosen if costs[own] <= costs[one]]
    return bool(costs[one] < 1 and means[one] > max([reference, *others]))
