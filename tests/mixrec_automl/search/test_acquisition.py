import math

import pytest
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.sampling import SobolQMCNormalSampler
from mpmath import mp

from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement, log_standard_improvement
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.surrogate import DesignSurrogate, fit

BITS = 12


def random_designs(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(number, BITS, generator=generator) < 0.5).double()


@pytest.fixture(scope="module")
def observed() -> torch.Tensor:
    return random_designs(20, seed=0)


def prior(bits: torch.Tensor) -> torch.Tensor:
    """Scores that have a part of the outcomes right."""
    return bits @ torch.linspace(1, -1, BITS, dtype=torch.float64) + 3


PRIORS = pytest.mark.parametrize("surrogate", [None, prior], ids=["constant mean", "prior"], indirect=True)


@pytest.fixture(scope="module")
def surrogate(observed: torch.Tensor, request: pytest.FixtureRequest) -> DesignSurrogate:
    own: PriorScores | None = getattr(request, "param", None)
    generator = torch.Generator().manual_seed(1)
    effects = 0.001 * torch.randn(BITS, generator=generator, dtype=torch.float64)
    noise = 0.0008 * torch.randn(20, generator=generator, dtype=torch.float64)
    expected = 0.05 + observed @ effects + (0.0 if own is None else 0.001 * own(observed))
    return fit(observed, expected + noise, noise_variance=0.0008**2, prior=own)


@pytest.mark.parametrize("u", [-1e8, -2e4, -9999.0, -50.0, -3.0, -1.001, -0.999, 0.0, 0.7, 8.0])
def test_log_standard_improvement_equals_fifty_digits(u: float) -> None:
    with mp.workdps(60 if u > -1e4 else 40):
        x = mp.mpf(u)
        if u > -1e4:
            exact = mp.log(mp.npdf(x) + x * mp.ncdf(x))
        else:  # leading terms of the asymptotic series; the next one is below 1e-16
            exact = -x * x / 2 - mp.log(mp.sqrt(2 * mp.pi)) - 2 * mp.log(-x) + mp.log(1 - 3 / x**2)
    got = log_standard_improvement(torch.tensor(u, dtype=torch.float64)).item()
    assert got == pytest.approx(float(exact), rel=1e-7, abs=1e-9)


@PRIORS
@pytest.mark.parametrize("pending", [None, random_designs(3, seed=5)], ids=["none pending", "three pending"])
def test_equals_botorch_with_many_joint_samples(
    surrogate: DesignSurrogate, observed: torch.Tensor, pending: torch.Tensor | None
) -> None:
    """BoTorch samples f(z) too and so needs thousands of draws where the closed form needs 64."""
    designs = random_designs(300, seed=2)
    peer = qLogNoisyExpectedImprovement(
        surrogate,
        observed,
        sampler=SobolQMCNormalSampler(torch.Size([16384]), seed=3),
        X_pending=pending,
        prune_baseline=False,
        tau_relu=1e-8,
        tau_max=1e-8,
    )
    with torch.no_grad():
        expected = peer(designs[:, None])
    values = LogNoisyExpectedImprovement(surrogate, observed, pending)(designs)
    close = expected > expected.max() - 1
    assert int(close.sum()) >= 3
    assert (values - expected)[close].abs().max() < 0.15
    assert int(values.argmax()) == int(expected.argmax())
    assert values[expected < expected.max() - 2].max() < values.max() - 1


@pytest.mark.parametrize("own", [None, prior], ids=["constant mean", "prior"])
def test_without_training_noise_it_is_the_textbook_formula(own: PriorScores | None) -> None:
    designs = random_designs(15, seed=7)
    outcomes = torch.randn(15, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    surrogate = fit(designs, outcomes, noise_variance=1e-9, prior=own)
    others = random_designs(50, seed=9)
    with torch.no_grad():
        posterior = surrogate.posterior(others)
        mean, deviation = posterior.mean[:, 0], posterior.variance[:, 0].sqrt()
    u = (mean - outcomes.max()) / deviation
    normal = torch.distributions.Normal(0.0, 1.0)
    textbook = deviation * (normal.log_prob(u).exp() + u * normal.cdf(u))
    values = LogNoisyExpectedImprovement(surrogate, designs)(others)
    likely = textbook > textbook.max() * 1e-3
    assert torch.allclose(values[likely], textbook[likely].log(), atol=0.02)


def test_a_pending_design_takes_away_what_is_to_be_gained_there(
    surrogate: DesignSurrogate, observed: torch.Tensor
) -> None:
    designs = random_designs(300, seed=2)
    alone = LogNoisyExpectedImprovement(surrogate, observed)(designs)
    best = designs[alone.argmax()]
    beside = LogNoisyExpectedImprovement(surrogate, observed, best[None])
    after = beside(designs)
    assert after[alone.argmax()] < alone.max() - 5
    promising = alone > alone.max() - 2
    assert (after - alone)[promising].max() < 0.2, "more than the sampling error"
    assert (after - alone)[promising].mean() < -0.1
    distance = (designs - best).abs().sum(dim=1)
    near, far = (alone - after)[(distance > 0) & (distance <= 3)], (alone - after)[distance >= 6]
    assert near.median() > far.median() + 0.1


def test_repeated_baseline_rows_count_once(surrogate: DesignSurrogate, observed: torch.Tensor) -> None:
    designs = random_designs(20, seed=4)
    once = LogNoisyExpectedImprovement(surrogate, observed)(designs)
    twice = LogNoisyExpectedImprovement(surrogate, observed.repeat(2, 1), observed[:2])(designs)
    assert torch.equal(once, twice)
    assert math.isfinite(float(once.sum()))
