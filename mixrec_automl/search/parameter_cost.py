"""The number of trainable parameters as the second objective of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product

from mixrec_automl.search.design_space import DesignSpace, values_of
from mixrec_automl.search.known_cost import KnownCost
from search_spaces.mixed import Real, Setting, Value
from trainers.errors import UserError

MARGIN = 0.1
"""By which the largest budget is above the largest design, as a share of the range: that design counts as well"""


def parameter_cost(space: DesignSpace, count: Callable[[Mapping[str, Value]], int]) -> tuple[KnownCost, int, int]:
    """The logarithm of the number of trainable parameters: 0 of the smallest design, below 1 of the largest; and both
    of these numbers.

    Args:
        space: of the designs.
        count: of some settings, the others being the configuration's own. Called once for each.

    Raises:
        UserError: all designs have equally many.
    """
    read = [one for one in space.settings if one.name.startswith("model.") and not isinstance(one, Real)]
    names = tuple(one.name for one in read)

    @cache
    def counted(*values: Value) -> int:
        return count(dict(zip(names, values, strict=True)))

    # A dense integer is a width or a rank, which count the most at their ends.
    every = [counted(*values) for values in product(*(values_of(one) or (one.value(0), one.value(1)) for one in read))]
    least, most = min(every), max(every)
    if least == most:
        raise UserError(
            f"search.second_objective: all designs have {most:,} trainable parameters; declare "
            "search.settings that change that number, such as model.bottleneck"
        )
    lowest, highest = math.log(least), math.log(most) + MARGIN * math.log(most / least)

    def of(setting: Setting) -> float:
        return (math.log(counted(*(setting[name] for name in names))) - lowest) / (highest - lowest)

    return KnownCost(of, names), least, most
