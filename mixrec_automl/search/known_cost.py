"""What a setting costs, known without an evaluation, for a search that looks for the best outcome at every cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixrec_automl.search.budgets import Cost
from mixrec_automl.search.relaxation import Relaxation
from search_spaces.mixed import MixedSpace, Setting


@dataclass(frozen=True)
class KnownCost:
    """A second objective: the lower the better."""

    of: Callable[[Setting], float]
    """The cost of a setting, of which it is given what it `reads`: from 0, the least, to 1, at which no outcome counts.
    All budgets between count alike, so what counts by ratios is given as its logarithm."""
    reads: tuple[str, ...]
    """Names of the parameters that the cost hangs on; the fewer values they have, the faster"""

    def over(self, space: MixedSpace, relaxation: Relaxation) -> Cost:
        """The same of `relaxation.features`.

        It raises ValueError for a cost that is not in [0, 1].
        """
        places = [[one.name for one in space.parameters].index(name) for name in self.reads]
        read = [space.parameters[place] for place in places]
        known: dict[tuple[float, ...], float] = {}

        def one(levels: tuple[float, ...]) -> float:
            if levels not in known:
                setting = {own.name: own.value(level) for own, level in zip(read, levels, strict=True)}
                cost = self.of(setting)
                if not 0 <= cost <= 1:
                    raise ValueError(f"the cost of {setting} is {cost}, which is not between 0 and 1")
                known[levels] = cost
            return known[levels]

        def costs(features: Tensor) -> Tensor:
            levels = relaxation.points(features.detach())[:, places]
            distinct, which = torch.unique(levels, dim=0, return_inverse=True)
            of_distinct = [one(tuple(row)) for row in distinct.tolist()]
            return torch.tensor(of_distinct, dtype=torch.float64)[which]

        return costs
