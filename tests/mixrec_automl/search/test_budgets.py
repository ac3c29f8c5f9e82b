"""The best outcome for every budget against integration by hand and BoTorch's hypervolume."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from mixrec_automl.search.budgets import Budgets, by_contribution


def drawn(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Outcomes and costs, some of which are equal, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randint(0, 9, (number,), generator=generator) / 8
    return torch.randn(number, generator=generator, dtype=torch.float64), costs.double()


@pytest.mark.parametrize("seed", range(8))
def test_the_hypervolume_is_botorchs(seed: int) -> None:
    values, costs = drawn(12, seed)
    reference = values.median()
    objectives = torch.stack([values, -costs], dim=1)
    peer = Hypervolume(torch.stack([reference, torch.tensor(-1.0).double()]))
    expected = peer.compute(objectives[is_non_dominated(objectives)])
    assert float(Budgets(costs, reference).hypervolume(values)) == pytest.approx(expected, abs=1e-12)


def test_it_is_the_mean_over_all_budgets_of_the_best_that_can_be_afforded() -> None:
    values, costs = drawn(12, 3)
    reference, total, number = float(values.median()), 0.0, 100_000
    for budget in ((torch.arange(number) + 0.5) / number).tolist():
        total += max([reference, *values[costs <= budget].tolist()]) - reference
    assert float(Budgets(costs, values.median()).hypervolume(values)) == pytest.approx(total / number, abs=1e-4)


def test_several_draws_of_the_outcomes_are_taken_at_once() -> None:
    values, costs = drawn(12, 4)
    draws = torch.stack([values, -values, values.square()])
    together = Budgets(costs, values.median()).hypervolume(draws)
    alone = [Budgets(costs, values.median()).hypervolume(one) for one in draws]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("seed", range(8))
def test_the_first_few_of_the_order_hold_nearly_all_that_as_many_can(seed: int) -> None:
    """Greedy choice of a monotone submodular function reaches 1 - 1/e of the best at least (Nemhauser et al. 1978)."""
    values, costs = drawn(9, seed)
    reference = values.median()
    order = by_contribution(values, costs, reference)
    assert sorted(order) == list(range(9))
    assert order[0] == int(values.argmax()), "the winner of a search is the best of all"

    def volume(chosen: list[int]) -> float:
        return float(Budgets(costs[chosen], reference).hypervolume(values[chosen]))

    best = max(volume([order[0], *others]) for others in combinations(order[1:], 2))
    assert volume(order[:3]) >= (1 - 1 / torch.e) * best - 1e-12
    assert volume(order) == pytest.approx(volume(list(range(9))))


@pytest.mark.parametrize("seed", range(40))
def test_first_the_front_by_what_it_adds_then_the_others_by_their_value(seed: int) -> None:
    """Rounding must not pass for a contribution: costs that differ split the volume into steps."""
    generator = torch.Generator().manual_seed(seed)
    values, costs = torch.rand(12, generator=generator).double() / 100, torch.rand(12, generator=generator).double()
    reference = values.median()
    better = [bool(((costs <= costs[i]) & (values > values[i])).any()) for i in range(12)]
    front = {i for i in range(12) if not better[i] and values[i] > reference}
    order = by_contribution(values, costs, reference)
    assert set(order[: len(front)]) == front
    rest = values[order[len(front) :]]
    assert torch.equal(rest, rest.sort(descending=True).values)


def test_what_adds_nothing_comes_last_and_the_best_of_it_first() -> None:
    values = torch.tensor([5.0, 4.0, 3.0, 2.0], dtype=torch.float64)
    costs = torch.tensor([0.4, 0.6, 0.5, 0.1], dtype=torch.float64)
    assert by_contribution(values, costs, values.median()) == [0, 1, 2, 3], (
        "below the reference a small design counts for nothing"
    )
    assert by_contribution(values + torch.tensor([0.0, 0, 0, 2.5]), costs, values.median()) == [0, 3, 1, 2]
