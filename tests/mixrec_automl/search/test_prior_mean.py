"""The surrogate whose mean is a prior's scores, against textbook formulas with explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpytorch.means import ConstantMean

from mixrec_automl.search.prior_gate import chance_of_ranking
from mixrec_automl.search.prior_mean import PriorMean, PriorScores
from mixrec_automl.search.surrogate import DesignSurrogate, fit, leave_one_out, noise_of, predict
from mixrec_automl.search.transfer import PosteriorMean
from tests.mixrec_automl.search.test_surrogate import NOISE, designs, mrr, response

Truth = tuple[torch.Tensor, torch.Tensor]


def weights(scale: float) -> PriorScores:
    """Scores that rise with the first bits most."""
    return lambda bits: 3.0 + scale * (bits @ torch.linspace(1, 0, bits.shape[-1], dtype=torch.float64))


PRIOR = weights(0.002)


def outcomes_of(bits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of it the prior, half of it not."""
    rest = mrr(bits, *response(generator))
    return rest + PRIOR(bits) + NOISE * torch.randn(len(bits), generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted() -> tuple[DesignSurrogate, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    bits = torch.unique(designs(20, generator), dim=0)  # in the order of the surrogate
    outcomes = outcomes_of(bits, generator)
    return fit(bits, outcomes, NOISE**2, prior=PRIOR), bits, outcomes


def kernel(surrogate: DesignSurrogate, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = surrogate.covar_module(torch.tensor(left), torch.tensor(right)).to_dense().numpy()
    return found


def spread_of_rest(bits: np.ndarray, outcomes: np.ndarray) -> float:
    """Of the residuals of a straight line in the prior's scores, two degrees of freedom spent."""
    regressors = np.column_stack([np.ones(len(bits)), PRIOR(torch.tensor(bits)).numpy()])
    left = outcomes - regressors @ np.linalg.lstsq(regressors, outcomes, rcond=None)[0]
    return float(np.sqrt(left @ left / (len(left) - 2)))


def literal(
    surrogate: DesignSurrogate, bits: np.ndarray, outcomes: np.ndarray, queries: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Universal kriging given its coefficients: y = m + K a, all on the scale of the outcomes."""
    mean = surrogate.mean_module
    with torch.no_grad():
        centre = surrogate.outcome_transform.means.item()
        at_trials, at_queries = (centre + scale * mean(torch.tensor(rows)).numpy() for rows in (bits, queries))
    precision = np.linalg.inv(kernel(surrogate, bits, bits) * scale**2 + np.eye(len(bits)) * NOISE**2)
    cross = kernel(surrogate, queries, bits) * scale**2
    variance = scale**2 - np.einsum("ij,jk,ik->i", cross, precision, cross)
    return at_queries + cross @ precision @ (outcomes - at_trials), np.sqrt(variance)


def test_posterior_is_that_of_a_literal_gaussian_process(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, outcomes = fitted
    queries = designs(40, torch.Generator().manual_seed(1))
    scale = spread_of_rest(bits.numpy(), outcomes.numpy())
    expected = literal(surrogate, bits.numpy(), outcomes.numpy(), queries.numpy(), scale)
    mean, deviation = predict(surrogate, queries)
    np.testing.assert_allclose(mean.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), expected[1], rtol=1e-5)


def test_constant_and_slope_are_generalised_least_squares(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, _ = fitted
    scores = PRIOR(bits).numpy()
    regressors = np.column_stack([np.ones(len(bits)), (scores - scores.mean()) / scores.std(ddof=1)])
    covariance = kernel(surrogate, bits.numpy(), bits.numpy()) + np.diag(noise_of(surrogate).numpy())
    weighted = regressors.T @ np.linalg.inv(covariance)
    expected = np.linalg.solve(weighted @ regressors, weighted @ surrogate.train_targets.numpy())
    found = [surrogate.mean_module.constant.item(), surrogate.mean_module.slope.item()]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found[1] > 0.3


def test_leave_one_out_is_what_leaving_one_out_gives(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, outcomes = fitted
    mean, deviation = leave_one_out(surrogate)
    rows, values = bits.numpy(), outcomes.numpy()
    scale = spread_of_rest(rows, values)
    for left_out in range(len(values)):
        kept = np.delete(np.arange(len(values)), left_out)
        expected = literal(surrogate, rows[kept], values[kept], rows[[left_out]], scale)
        assert float(mean[left_out]) == pytest.approx(expected[0][0], rel=1e-6)
        assert float(deviation[left_out]) == pytest.approx(float(np.hypot(expected[1][0], NOISE)), rel=1e-5)


def test_shift_and_scale_of_the_scores_do_not_matter(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, outcomes = fitted
    queries = designs(10, torch.Generator().manual_seed(2))
    other = fit(bits, outcomes, NOISE**2, prior=lambda asked: 50 * PRIOR(asked) - 7)
    torch.testing.assert_close(predict(other, queries)[0], predict(surrogate, queries)[0], rtol=1e-4, atol=0.0)


def test_an_opposite_prior_gets_the_slope_zero_and_none_at_all_a_constant_mean(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    _, bits, outcomes = fitted
    opposite = fit(bits, outcomes, NOISE**2, prior=weights(-0.002))
    assert isinstance(opposite.mean_module, PriorMean)
    assert opposite.mean_module.slope.item() == 0.0
    without = fit(bits, outcomes, NOISE**2)
    assert type(without.mean_module) is ConstantMean
    queries = designs(10, torch.Generator().manual_seed(3))
    torch.testing.assert_close(predict(opposite, queries)[0], predict(without, queries)[0], rtol=0.01, atol=0.0)


def test_the_posterior_mean_of_a_surrogate_is_a_prior() -> None:
    generator = torch.Generator().manual_seed(4)
    bits = designs(15, generator)
    surrogate = fit(bits, outcomes_of(bits, generator), NOISE**2)
    queries = designs(30, generator).reshape(5, 6, -1)
    expected = torch.stack([predict(surrogate, rows)[0] for rows in queries])
    scaling = surrogate.outcome_transform
    found = scaling.means.squeeze() + scaling.stdvs.squeeze() * PosteriorMean(surrogate)(queries)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def mixture(left: Truth, right: Truth, share: float) -> Truth:
    """A response whose correlation with `left`'s is about `share`."""
    own, other = share, (1 - share**2) ** 0.5
    return own * left[0] + other * right[0], own * left[1] + other * right[1]


def test_a_related_source_lowers_the_error_and_an_unrelated_one_hardly_raises_it() -> None:
    """Of unseen designs, with the gate, in 16 simulated searches of ten designs each: differences paired by search."""
    gains: dict[str, list[float]] = {"related": [], "unrelated": []}
    for search in range(16):
        generator = torch.Generator().manual_seed(500 + search)
        truth, stranger = response(generator), response(generator)
        bits, unseen, known = designs(10, generator), designs(200, generator), designs(40, generator)
        noise = NOISE * torch.randn(50, generator=generator, dtype=torch.float64)
        outcomes = mrr(bits, *truth) + noise[:10]
        alone = fit(bits, outcomes, NOISE**2)
        with torch.no_grad():
            covariance = alone.covar_module(bits).to_dense() + torch.diag(noise_of(alone))
        without = predict(alone, unseen)[0]
        for name, source in (("related", mixture(truth, stranger, 0.9)), ("unrelated", stranger)):
            prior = PosteriorMean(fit(known, mrr(known, *source) + noise[10:], NOISE**2))
            predicted = without
            if chance_of_ranking(prior(bits), outcomes, covariance) <= 0.05:
                predicted = predict(fit(bits, outcomes, NOISE**2, prior=prior), unseen)[0]
            errors = [(each - mrr(unseen, *truth)).square().mean().sqrt() for each in (without, predicted)]
            gains[name].append(float((errors[0] - errors[1]) / errors[0]))
    means = {name: float(np.mean(of_name)) for name, of_name in gains.items()}
    print(f"\nerror lower by: related {means['related']:.1%}, unrelated {means['unrelated']:.1%}")
    assert means["related"] > 0.05
    assert means["unrelated"] > -0.05
