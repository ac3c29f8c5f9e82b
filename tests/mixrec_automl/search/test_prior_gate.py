"""The gate: recursive residuals against ordinary kriging, and how often what passes in simulation."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from mixrec_automl.search.encoding import of_bits
from mixrec_automl.search.prior_gate import LEAST_DESIGNS, LEVEL, chance_of_ranking, passes, recursive_residuals
from mixrec_automl.store.records import Trial, TrialState
from search_spaces.architecture import Architecture
from tests.mixrec_automl.search.test_surrogate import NOISE, designs, mrr, response
from tests.mixrec_automl.search.trials import trial

BITS = 12
ENCODING = of_bits(BITS)


def kernel(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.exp(-(left[:, None] != right[None]).sum(dim=-1).double() / 20)


def ordinary_kriging(values: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """Best linear unbiased prediction of the last value out of the others, and the standard deviation of its error."""
    known = len(values) - 1
    system = np.ones((known + 1, known + 1))
    system[:known, :known], system[known, known] = covariance[:known, :known], 0.0
    target = np.append(covariance[:known, known], 1.0)
    solution = np.linalg.solve(system, target)
    return float(solution[:known] @ values[:known]), float(np.sqrt(covariance[known, known] - solution @ target))


def test_recursive_residuals_are_the_errors_of_ordinary_kriging() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = designs(9, generator)
    covariance = kernel(bits, bits) + 0.1 * torch.eye(9, dtype=torch.float64)
    values = torch.randn(2, 9, generator=generator, dtype=torch.float64) + 5
    found = recursive_residuals(values, covariance)
    assert found.shape == (2, 8)
    for row in range(2):
        for place in range(1, 9):
            own = values[row, : place + 1].numpy()
            expected, deviation = ordinary_kriging(own, covariance[: place + 1, : place + 1].numpy())
            np.testing.assert_allclose(float(found[row, place - 1]), (own[-1] - expected) / deviation, rtol=1e-8)


def climbed(generator: torch.Generator, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Designs and outcomes of a search that always tries a neighbour of its best, in a draw of the Gaussian process."""
    pool = torch.unique(designs(400, generator), dim=0)
    noise = 0.1 * torch.eye(number, dtype=torch.float64)
    covariance = kernel(pool, pool) + 1e-9 * torch.eye(len(pool), dtype=torch.float64)
    truth = torch.linalg.cholesky(covariance) @ torch.randn(len(pool), generator=generator, dtype=torch.float64)
    chosen, outcomes = [0], []
    for _ in range(number):
        outcomes.append(float(truth[chosen[-1]]) + float(torch.randn((), generator=generator)) * 0.1**0.5)
        distance = (pool != pool[chosen[int(np.argmax(outcomes))]]).sum(dim=1).double()
        distance[chosen] = torch.inf
        chosen.append(int(distance.argmin()))
    found = pool[chosen[:number]]
    return torch.stack([torch.tensor(outcomes, dtype=torch.float64)]), kernel(found, found) + noise


def test_a_useless_prior_passes_at_the_stated_level_also_where_designs_lie_in_a_cluster() -> None:
    """Outcomes led to the designs, and outcomes and scores are both smooth: as many as independent numbers pass."""
    repeats, level, raw = 300, 0, 0
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(repeat)
        [outcomes], covariance = climbed(generator, 12)
        smooth = torch.linalg.cholesky(covariance) @ torch.randn(12, generator=generator, dtype=torch.float64)
        level += chance_of_ranking(smooth, outcomes, covariance) <= LEVEL
        raw += bool(stats.kendalltau(smooth, outcomes, alternative="greater").pvalue <= LEVEL)
    print(f"\nuseless priors that pass: {level / repeats:.3f}; by their raw ranks {raw / repeats:.3f}")
    assert level <= stats.binom.ppf(0.999, repeats, LEVEL)
    assert level > 0


def searched(generator: torch.Generator, number: int) -> tuple[list[Trial], torch.Tensor, torch.Tensor]:
    """Trials of random designs with two effects of layers, and the parts of their response."""
    effects, pairs = response(generator)
    bits = designs(number, generator)
    noise = NOISE * torch.randn(number, generator=generator, dtype=torch.float64)
    outcomes = mrr(bits, effects, pairs) + noise
    rows = zip(bits.int().tolist(), outcomes.tolist(), strict=True)
    return [trial(place, Architecture.from_bits(row), mrr=own) for place, (row, own) in enumerate(rows)], effects, pairs


def test_the_truth_passes_its_opposite_never_and_useless_ones_rarely() -> None:
    """Through the fit of the surrogate."""
    passed = {"truth": 0, "opposite": 0, "useless": 0}
    for search in range(20):
        generator = torch.Generator().manual_seed(search)
        trials, *truth = searched(generator, 10)
        stranger = response(generator)
        passed["truth"] += passes(lambda bits, own=truth: mrr(bits, *own), trials, ENCODING)  # type: ignore[misc]
        passed["opposite"] += passes(lambda bits, own=truth: -mrr(bits, *own), trials, ENCODING)  # type: ignore[misc]
        passed["useless"] += passes(lambda bits, own=stranger: mrr(bits, *own), trials, ENCODING)  # type: ignore[misc]
    assert passed["truth"] == 20
    assert passed["opposite"] == 0
    assert passed["useless"] <= stats.binom.ppf(0.999, 20, LEVEL)


def test_with_too_few_designs_or_equal_scores_nothing_passes() -> None:
    trials, *truth = searched(torch.Generator().manual_seed(0), LEAST_DESIGNS)

    def prior(bits: torch.Tensor) -> torch.Tensor:
        return mrr(bits, *truth)

    assert passes(prior, trials, ENCODING)
    unfinished = [*trials[:-1], trial(9, "111-111-111-111", state=TrialState.RUNNING)]
    assert not passes(prior, unfinished, ENCODING)
    replicate = trial(9, trials[0].architecture, mrr=0.05, seed=1)
    assert not passes(prior, [*trials[:-1], replicate], ENCODING), "designs count, not trials"
    assert not passes(lambda bits: torch.full(bits.shape[:-1], 0.3, dtype=torch.float64), trials, ENCODING)
