"""Expected hypervolume improvement, and its knowledge gradient, against simulation."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.budgets import Budgets
from mixrec_automl.search.hypervolume import LogNoisyHypervolumeImprovement
from mixrec_automl.search.kernels import Columns
from mixrec_automl.search.replication import design_to_train, knowledge_gradients
from mixrec_automl.search.surrogate import DesignSurrogate, fit, ordinary_outcome
from tests.mixrec_automl.search.test_acquisition import random_designs

DRAWS = 20_000


def cost(designs: Tensor) -> Tensor:
    """Of twelve bits; rather cheap ones are frequent."""
    return (designs[:, :3] @ torch.tensor([0.5, 0.25, 0.15], dtype=torch.float64)).double()


def no_cost(designs: Tensor) -> Tensor:
    return torch.zeros(len(designs), dtype=torch.float64)


@pytest.fixture(scope="module")
def observed() -> Tensor:
    return random_designs(20, seed=0)


@pytest.fixture(scope="module")
def surrogate(observed: Tensor) -> DesignSurrogate:
    """Larger designs are better."""
    generator = torch.Generator().manual_seed(1)
    effects = 0.001 * torch.randn(12, generator=generator, dtype=torch.float64)
    noise = 0.0008 * torch.randn(20, generator=generator, dtype=torch.float64)
    return fit(observed, 0.05 + observed @ effects + 0.003 * cost(observed) + noise, noise_variance=0.0008**2)


@pytest.mark.parametrize("pending", [None, random_designs(3, seed=5)], ids=["none pending", "three pending"])
def test_it_is_the_mean_gain_over_joint_draws(
    surrogate: DesignSurrogate, observed: Tensor, pending: Tensor | None
) -> None:
    """Each draw holds values of all that was seen and of the candidate; nothing is taken for granted but the cost."""
    seen = observed if pending is None else torch.cat([observed, pending])
    candidates = random_designs(40, seed=2)
    found = LogNoisyHypervolumeImprovement(surrogate, observed, pending, cost)(candidates)
    generator = torch.Generator().manual_seed(3)
    seen = torch.unique(seen, dim=0)
    with torch.no_grad():
        reference = ordinary_outcome(surrogate, surrogate.posterior(seen).mean[:, 0])
    expected = []
    for candidate in candidates:
        rows = torch.cat([seen, candidate[None]])
        with torch.no_grad():
            posterior = surrogate.posterior(rows)
        covariance = posterior.distribution.covariance_matrix + 1e-16 * torch.eye(len(rows))
        root = torch.linalg.cholesky(covariance + 1e-6 * covariance.diagonal().mean() * torch.eye(len(rows)))
        normal = torch.randn(DRAWS, len(rows), generator=generator, dtype=torch.float64)
        values, costs = posterior.mean[:, 0] + normal @ root.T, cost(rows)
        after = Budgets(costs, reference).hypervolume(values)
        before = Budgets(costs[:-1], reference).hypervolume(values[:, :-1])
        expected.append((after - before).mean())
    literal = torch.stack(expected)
    likely = literal > literal.max() / 4
    assert int(likely.sum()) >= 5
    assert (found - literal.log())[likely].abs().max() < 0.15
    assert found[~likely].max() < literal.max().log() - 1


def test_where_all_cost_the_same_it_is_expected_improvement(surrogate: DesignSurrogate, observed: Tensor) -> None:
    candidates = random_designs(100, seed=2)
    alone = LogNoisyExpectedImprovement(surrogate, observed)(candidates)
    both = LogNoisyHypervolumeImprovement(surrogate, observed, None, no_cost)(candidates)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-9)


def test_a_design_promises_the_more_the_less_it_costs(surrogate: DesignSurrogate, observed: Tensor) -> None:
    """The same candidates at different costs, and not at all at that of the largest budget."""
    candidates = random_designs(100, seed=2)

    def values(own: float) -> Tensor:
        def costs(designs: Tensor) -> Tensor:
            is_seen = (designs[:, None] == observed).all(dim=2).any(dim=1)
            return torch.where(is_seen, cost(designs), own)

        return LogNoisyHypervolumeImprovement(surrogate, observed, None, costs)(candidates)

    small, middle, large, beyond = (values(own) for own in (0.05, 0.5, 0.95, 1.0))
    is_new = ~(candidates[:, None] == observed).all(dim=2).any(dim=1)
    assert int(is_new.sum()) > 90
    assert bool((small > middle + 1e-6)[is_new].all())
    assert bool((middle > large + 1e-6)[is_new].all())
    assert bool((beyond < -600)[is_new].all())


def test_it_is_differentiable_in_continuous_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    designs = torch.rand(12, 3, generator=generator, dtype=torch.float64)
    surrogate = fit(designs, designs.square().sum(dim=1), 0.01, Columns(bits=0, numeric=3))
    values = LogNoisyHypervolumeImprovement(surrogate, designs, None, lambda rows: 0.9 * (rows[:, 0] > 0.5).double())
    asked = torch.rand(6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(values(asked).sum(), asked)
    for column in range(3):
        step = torch.zeros_like(asked)
        step[:, column] = 1e-6
        with torch.no_grad():
            slope = (values(asked + step) - values(asked - step)) / 2e-6
        torch.testing.assert_close(gradient[:, column], slope, rtol=1e-4, atol=1e-4)


def test_the_knowledge_gradient_of_hypervolume_equals_quadrature() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    covariance, mean = root @ root.T, torch.randn(6, generator=generator, dtype=torch.float64)
    costs = torch.tensor([0.0, 0.3, 0.3, 0.6, 0.8, 1.0], dtype=torch.float64)
    budgets = Budgets(costs, mean.median())
    found = knowledge_gradients(mean, covariance, 0.5, budgets)
    quantiles = torch.tensor(stats.norm.ppf((torch.arange(200_000) + 0.5).numpy() / 200_000))
    for trained in range(6):
        moves = covariance[:, trained] / (covariance[trained, trained] + 0.5).sqrt()
        after = budgets.hypervolume(mean + quantiles[:, None] * moves).mean()
        assert float(found[trained]) == pytest.approx(float(after - budgets.hypervolume(mean)), abs=2e-5)


def test_without_a_cost_it_is_the_knowledge_gradient_of_the_best() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    mean = torch.randn(5, generator=generator, dtype=torch.float64)
    free = knowledge_gradients(mean, root @ root.T, 0.5, Budgets(torch.zeros(5).double(), mean.median()))
    alone = knowledge_gradients(mean, root @ root.T, 0.5)
    assert bool((free <= alone + 1e-12).all()), "the reference is one line more"
    assert int(free.argmax()) == int(alone.argmax())


def test_a_new_small_design_is_trained_rather_than_the_leading_large_one_again() -> None:
    designs = torch.tensor([[0, 0], [0, 1], [1, 1]], dtype=torch.float64)
    outcomes, new = torch.tensor([0.030, 0.033, 0.050]), torch.tensor([1.0, 0.0], dtype=torch.float64)
    noise, none = 0.004**2, torch.zeros(0, 2, dtype=torch.float64)
    surrogate = fit(designs, outcomes, noise)

    def by_second_bit(asked: Tensor) -> Tensor:
        return 0.1 + 0.85 * asked[:, 1]

    assert torch.equal(design_to_train(surrogate, new, designs, none, noise, by_second_bit), new)
