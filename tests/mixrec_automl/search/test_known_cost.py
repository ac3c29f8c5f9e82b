"""A known cost as a second objective: what it costs, and that the front is found."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from mixrec_automl.config import from_dict
from mixrec_automl.search.budgets import Budgets
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.parameter_cost import parameter_cost
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.suggestion import Observed, relaxation_of, suggest
from search_spaces.mixed import Categorical, Integer, MixedSpace, Ordinal, Real, Setting
from trainers.errors import UserError

LIGHT = Ascent(restarts=24, steps=20, samples=8)
SPACE = MixedSpace(
    (
        Ordinal("width", (4, 8, 16, 32, 64)),
        Categorical("kind", ("a", "b", "c")),
        Real("rate", 1e-4, 1e-1, log=True),
        Categorical("deep", (0, 1)),
    )
)


def size(setting: Setting) -> float:
    return (math.log2(float(setting["width"] or 0)) - 2) / 4 * 0.7 + 0.2 * (setting["kind"] == "c")


COST = KnownCost(size, ("width", "kind"))


def outcome(setting: Setting) -> float:
    """Wider is better, less and less so; kind c helps a little, b never; and there is a best rate."""
    width, rate = math.log2(float(setting["width"] or 0)), float(setting["rate"] or 0)
    kind = {"a": 0.0, "b": -0.5, "c": 0.15}[str(setting["kind"])]
    return math.sqrt(width) + kind - 0.3 * (math.log10(rate) + 2.5) ** 2 + 0.1 * float(setting["deep"] or 0)


def hypervolume(settings: list[Setting]) -> float:
    values = torch.tensor([outcome(one) for one in settings], dtype=torch.float64)
    costs = torch.tensor([size(one) for one in settings], dtype=torch.float64)
    return float(Budgets(costs, torch.tensor(1.0, dtype=torch.float64)).hypervolume(values))


def searched(cost: KnownCost | None, budget: int, seed: int) -> float:
    history: list[Observed] = []
    while len(history) < budget:
        setting = suggest(SPACE, history, seed=seed, initial=6, ascent=LIGHT, cost=cost)
        history.append(Observed(setting, outcome(setting)))
    return hypervolume([one.setting for one in history])


def test_the_cost_of_rows_is_that_of_the_settings_they_mean() -> None:
    relaxation = relaxation_of(SPACE)
    levels = [(w, k, r, d) for w, k, r, d in product(range(5), range(3), (0.0, 0.37), (0, 1))]
    points = torch.tensor(levels, dtype=torch.float64)
    found = COST.over(SPACE, relaxation)(relaxation.features(points))
    assert found.tolist() == [size(SPACE.setting(row)) for row in points.tolist()]
    torch.testing.assert_close(relaxation.points(relaxation.features(points)), points)


def test_a_cost_beyond_the_largest_budget_is_refused() -> None:
    relaxation = relaxation_of(SPACE)
    rows = relaxation.features(torch.zeros(1, 4, dtype=torch.float64))
    for wrong in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            KnownCost(lambda _, wrong=wrong: wrong, ("width",)).over(SPACE, relaxation)(rows)  # type: ignore[misc]


def test_24_evaluations_find_most_of_the_front_and_more_than_a_search_for_the_best_alone() -> None:
    rates = [10 ** (-2.5)]
    everything = [
        {"width": w, "kind": k, "rate": r, "deep": 1} for w, k, r in product((4, 8, 16, 32, 64), ("a", "c"), rates)
    ]
    whole = hypervolume(list(everything))
    both = [searched(COST, 24, seed) / whole for seed in range(2)]
    alone = [searched(None, 24, seed) / whole for seed in range(2)]
    assert sum(both) / 2 > 0.93, both
    assert sum(both) > sum(alone), (both, alone)


def space_of(settings: dict[str, object]) -> DesignSpace:
    return DesignSpace.of(from_dict({"data": {"name": "x"}, "search": {"settings": settings}}, "test"), 2)


def count(settings: Setting) -> int:
    width = int(settings["model.bottleneck"] or 0)
    return 1000 + width * (2 if settings.get("model.causal_expert") == "none" else 3)


def test_sizes_lie_between_the_smallest_and_a_tenth_above_the_largest_by_their_logarithm() -> None:
    space = space_of(
        {
            "model.bottleneck": [10, 100, 1000],
            "model.causal_expert": ["none", "bottleneck"],
            "model.projection_dropout": {"low": 0.0, "high": 0.5},
            "training.learning_rate": {"low": 1e-4, "high": 1e-2},
        }
    )
    cost, least, most = parameter_cost(space, count)
    assert (least, most) == (1020, 4000)
    assert cost.reads == ("model.bottleneck", "model.causal_expert")
    smallest = {"model.bottleneck": 10, "model.causal_expert": "none"}
    largest = {"model.bottleneck": 1000, "model.causal_expert": "bottleneck"}
    middle = {"model.bottleneck": 100, "model.causal_expert": "none"}
    assert cost.of(smallest) == 0
    assert cost.of(largest) == pytest.approx(1 / 1.1)
    assert cost.of(middle) == pytest.approx(math.log(1200 / 1020) / math.log(4000 / 1020) / 1.1)


def test_of_a_dense_whole_number_the_ends_are_the_extremes() -> None:
    cost, _least, _most = parameter_cost(space_of({"model.bottleneck": {"low": 1, "high": 500}}), count)
    assert cost.of({"model.bottleneck": 1}) == 0
    assert 0 < cost.of({"model.bottleneck": 77}) < cost.of({"model.bottleneck": 500}) < 1
    assert isinstance(space_of({"model.bottleneck": {"low": 1, "high": 500}}).settings[0], Integer)


def test_designs_that_are_all_of_one_size_are_refused() -> None:
    with pytest.raises(UserError, match=r"all designs have 1,048 trainable parameters; declare search\.settings that"):
        parameter_cost(space_of({"model.activation": ["none", "gelu"]}), lambda _: 1048)
