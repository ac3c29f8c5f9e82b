import numpy as np
import pytest
import torch

from mixrec_automl.search.surrogate import DesignSurrogate, fit, leave_one_out, predict

BITS = 12
NOISE = 0.001
USER_ERROR = 0.006
"""Standard error of MRR over 600 users: an offset that all trials share, not their noise."""


def designs(number: int, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(number, BITS, generator=generator) < 0.5).double()


def response(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Effects of single bits and of pairs within a layer."""
    effects = torch.randn(BITS, generator=generator, dtype=torch.float64)
    pairs = torch.zeros(BITS, BITS, dtype=torch.float64)
    for layer in range(0, BITS, 3):
        block = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        pairs[layer : layer + 3, layer : layer + 3] = 2 * torch.triu(block, 1)
    return effects, pairs


def mrr(bits: torch.Tensor, effects: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """About .05, with a spread of .004 between designs."""
    centred = bits - 0.5
    raw = centred @ effects + ((centred @ pairs) * centred).sum(dim=1)
    return 0.05 + 0.004 * raw / (effects.square().sum() / 4 + pairs.square().sum() / 16).sqrt()


@pytest.fixture(scope="module")
def fitted() -> tuple[DesignSurrogate, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    bits = designs(25, generator)
    outcomes = mrr(bits, *response(generator))
    outcomes = outcomes + NOISE * torch.randn(25, generator=generator, dtype=torch.float64)
    surrogate = fit(bits, outcomes, NOISE**2)
    scale = surrogate.outcome_transform
    in_order = scale.untransform(surrogate.train_targets[:, None])[0][:, 0]
    return surrogate, surrogate.train_inputs[0], in_order


def literal_posterior(
    surrogate: DesignSurrogate, bits: np.ndarray, outcomes: np.ndarray, queries: np.ndarray, scale: float, centre: float
) -> tuple[np.ndarray, np.ndarray]:
    """Textbook GP with explicit inverses, with the covariance of `surrogate` (`test_kernels.py`)."""
    mean = surrogate.mean_module.constant.item()

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        found: np.ndarray = surrogate.covar_module(torch.tensor(left), torch.tensor(right)).to_dense().numpy()
        return found

    precision = np.linalg.inv(kernel(bits, bits) + np.eye(len(bits)) * NOISE**2 / scale**2)
    cross = kernel(queries, bits)
    expectation = mean + cross @ precision @ ((outcomes - centre) / scale - mean)
    variance = 1 - np.einsum("ij,jk,ik->i", cross, precision, cross)
    return centre + scale * expectation, scale * np.sqrt(variance)


def test_posterior_is_that_of_a_literal_gaussian_process(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, outcomes = fitted
    queries = designs(40, torch.Generator().manual_seed(1))
    mean, deviation = predict(surrogate, queries)
    values = outcomes.numpy()
    expected = literal_posterior(
        surrogate, bits.numpy(), values, queries.numpy(), float(values.std(ddof=1)), float(values.mean())
    )
    np.testing.assert_allclose(mean.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), expected[1], rtol=1e-5)


def test_leave_one_out_is_what_leaving_one_out_gives(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, outcomes = fitted
    values = outcomes.numpy()
    mean, deviation = leave_one_out(surrogate)
    for left_out in range(len(values)):
        kept = np.delete(np.arange(len(values)), left_out)
        expected = literal_posterior(
            surrogate,
            bits.numpy()[kept],
            values[kept],
            bits.numpy()[[left_out]],
            float(values.std(ddof=1)),
            float(values.mean()),
        )
        assert float(mean[left_out]) == pytest.approx(expected[0][0], rel=1e-6)
        assert float(deviation[left_out]) == pytest.approx(float(np.hypot(expected[1][0], NOISE)), rel=1e-6)


def test_predictions_follow_the_units_of_the_outcome(
    fitted: tuple[DesignSurrogate, torch.Tensor, torch.Tensor],
) -> None:
    surrogate, bits, outcomes = fitted
    mean, deviation = predict(surrogate, bits[:3] * 0)
    scaled_mean, scaled_deviation = predict(fit(bits, 100 * outcomes + 7, (100 * NOISE) ** 2), bits[:3] * 0)
    assert torch.allclose(scaled_mean, 100 * mean + 7, rtol=1e-4)
    assert torch.allclose(scaled_deviation, 100 * deviation, rtol=1e-3)


@pytest.mark.parametrize(
    ("assumed", "least"), [(NOISE, 0.84), (NOISE / 3, 0.84), (2 * NOISE, 0.8)], ids=["right", "a third", "twice"]
)
def test_ninety_percent_intervals_cover(assumed: float, least: float) -> None:
    """Of the noise-free MRR of unseen designs, over 40 simulated searches of 24 trials, also where the level is off."""
    inside, errors = [], []
    for search in range(40):
        generator = torch.Generator().manual_seed(100 + search)
        truth = response(generator)
        bits, unseen = designs(24, generator), designs(200, generator)
        outcomes = mrr(bits, *truth) + NOISE * torch.randn(24, generator=generator, dtype=torch.float64)
        mean, deviation = predict(fit(bits, outcomes, assumed**2), unseen)
        error = mean - mrr(unseen, *truth)
        inside.append((error.abs() < 1.645 * deviation).double().mean())
        errors.append(error.square().mean())
    coverage = float(torch.stack(inside).mean())
    print(
        f"\nassumed noise {assumed:.5f}: coverage {coverage:.3f}, error {float(torch.stack(errors).mean()) ** 0.5:.5f}"
    )
    assert least <= coverage <= 0.96


def test_the_error_over_users_as_noise_would_hide_the_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = response(generator)
    bits, unseen = designs(24, generator), designs(500, generator)
    outcomes = mrr(bits, *truth) + NOISE * torch.randn(24, generator=generator, dtype=torch.float64)
    between_seeds, _ = predict(fit(bits, outcomes, NOISE**2), unseen)
    over_users, _ = predict(fit(bits, outcomes, USER_ERROR**2), unseen)
    print(f"\nspread of predictions: {float(between_seeds.std()):.5f} against {float(over_users.std()):.5f}")
    assert between_seeds.std() > 2 * over_users.std()


def test_equal_outcomes_and_replicates_are_no_problem() -> None:
    bits = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 1, 1]])
    mean, deviation = predict(fit(bits, torch.full((3,), 0.05), 1e-6), torch.tensor([[0.0, 1, 0]]))
    assert float(mean) == pytest.approx(0.05, abs=1e-6)
    assert float(deviation) > 0
