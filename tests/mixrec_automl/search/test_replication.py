"""The knowledge gradient against quadrature, and what it decides."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from mixrec_automl.search.replication import after, design_to_train, expected_maximum_of_lines, knowledge_gradients
from mixrec_automl.search.surrogate import fit

QUANTILES = torch.tensor(stats.norm.ppf((torch.arange(400_000) + 0.5).numpy() / 400_000))


def by_quadrature(intercepts: Tensor, slopes: Tensor) -> float:
    lines = intercepts[:, None] + slopes[:, None] * QUANTILES
    return float(lines.amax(dim=0).mean() - intercepts.max())


@pytest.mark.parametrize("seed", range(20))
def test_the_expected_maximum_equals_quadrature(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lines = int(torch.randint(1, 12, (), generator=generator))
    intercepts = torch.randn(lines, generator=generator, dtype=torch.float64)
    slopes = torch.randn(lines, generator=generator, dtype=torch.float64)
    if seed % 3 == 0:  # parallel lines and equal ones
        slopes = slopes.round()
        intercepts = intercepts.round()
    assert expected_maximum_of_lines(intercepts, slopes) == pytest.approx(by_quadrature(intercepts, slopes), abs=2e-5)


def test_two_lines_have_the_known_closed_form() -> None:
    """E[max(0, a + b Z)] - max(0, a), the expected improvement."""
    a, b = -0.7, 1.3
    found = expected_maximum_of_lines(torch.tensor([0.0, a]), torch.tensor([0.0, b]))
    assert found == pytest.approx(b * stats.norm.pdf(a / b) + a * stats.norm.cdf(a / b), abs=1e-7)


def test_one_result_more_is_the_posterior_of_a_gaussian_process_with_one_row_more() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    prior, noise = root @ root.T, 0.3
    rows = torch.zeros(2, 5, dtype=torch.float64)
    rows[0, 1] = rows[1, 3] = 1.0
    gain = prior @ rows.T @ torch.linalg.inv(rows @ prior @ rows.T + noise * torch.eye(2, dtype=torch.float64))
    expected = prior - gain @ rows @ prior
    torch.testing.assert_close(after(after(prior, 1, noise), 3, noise), expected, rtol=1e-10, atol=1e-10)


def test_independent_designs_gain_by_their_own_spread() -> None:
    mean = torch.tensor([0.0, 0.1, -5.0], dtype=torch.float64)
    covariance = torch.diag(torch.tensor([1.0, 0.01, 1.0], dtype=torch.float64))
    gains = knowledge_gradients(mean, covariance, 0.5)
    spread = 1 / math.sqrt(1.5)
    distance = -0.1 / spread
    expected = spread * (stats.norm.pdf(distance) + distance * stats.norm.cdf(distance))
    assert float(gains[0]) == pytest.approx(expected, rel=1e-9)
    assert gains.argmax() == 0
    assert float(gains[2]) < 1e-6, "far below the best, one result will not lift it"


OBSERVED = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.float64)
NEW = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
NONE = torch.zeros(0, 3, dtype=torch.float64)
OUTCOMES = torch.tensor([0.050, 0.0502, 0.040, 0.041])


def test_without_noise_a_new_design_is_always_trained() -> None:
    chosen = design_to_train(fit(OBSERVED, OUTCOMES, 1e-12), NEW, OBSERVED, NONE, 1e-12)
    assert torch.equal(chosen, NEW)


def test_with_noise_one_of_the_leading_designs_is_trained_again() -> None:
    noise = 0.004**2
    chosen = design_to_train(fit(OBSERVED, OUTCOMES, noise), NEW, OBSERVED, NONE, noise)
    assert any(torch.equal(chosen, leading) for leading in OBSERVED[:2])


def test_what_is_pending_is_not_trained_beside_itself() -> None:
    noise = 0.004**2
    surrogate = fit(OBSERVED, OUTCOMES, noise)
    first = design_to_train(surrogate, NEW, OBSERVED, NONE, noise)
    again = design_to_train(surrogate, NEW, OBSERVED, first.repeat(20, 1), noise)
    assert not torch.equal(again, first)
    unseen = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    design_to_train(surrogate, NEW, OBSERVED, unseen, noise)  # a pending design without a result counts as well
