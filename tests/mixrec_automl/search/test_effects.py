"""Effects of bits and pairs against what the posterior says when it is asked design by design."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch

from mixrec_automl.search.effects import LEVEL, effects_of_bits, effects_of_pairs, half_width
from mixrec_automl.search.explanation import Calibration, explain
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.surrogate import DesignSurrogate, fit, predict
from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.design import Design

WIDTH = 2 * half_width(6)


@pytest.fixture(scope="module")
def surrogate() -> DesignSurrogate:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.rand(14, 6, generator=generator) < 0.5).double()
    outcomes = 0.05 + 0.004 * rows[:, 0] - 0.002 * rows[:, 3] + 0.003 * rows[:, 1] * rows[:, 2]
    return fit(rows, outcomes + 0.0002 * torch.randn(14, generator=generator, dtype=torch.float64), 0.0002**2)


def test_an_effect_is_the_mean_over_all_designs_of_what_the_bit_changes(surrogate: DesignSurrogate) -> None:
    every = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=torch.float64)
    mean, _ = predict(surrogate, every)
    with torch.no_grad():
        samples = surrogate.posterior(every).rsample(torch.Size([20_000]))[..., 0]
    for bit, effect in enumerate(effects_of_bits(surrogate, 6)):
        has_it = every[:, bit] == 1
        assert effect.bits == (bit,)
        assert effect.mean == pytest.approx(float(mean[has_it].mean() - mean[~has_it].mean()), abs=1e-10)
        sampled = samples[:, has_it].mean(dim=1) - samples[:, ~has_it].mean(dim=1)
        assert (effect.high - effect.low) / WIDTH == pytest.approx(float(sampled.std()), rel=0.05)


def test_a_pair_is_a_difference_of_differences(surrogate: DesignSurrogate) -> None:
    every = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=torch.float64)
    mean = predict(surrogate, every)[0].reshape([2] * 6).numpy()
    found = {effect.bits: effect for effect in effects_of_pairs(surrogate, 6)}
    assert set(found) == set(combinations(range(6), 2))
    sizes = [abs(effect.mean) for effect in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    # 32 of the 64 designs are drawn; where the function has no term of three bits that makes no difference.
    for (one, other), effect in found.items():
        table = mean.mean(axis=tuple(axis for axis in range(6) if axis not in (one, other)))
        assert effect.mean == pytest.approx(table[1, 1] - table[1, 0] - table[0, 1] + table[0, 0], abs=2e-4)
    assert next(iter(found)) == (1, 2), "the pair that was put in"


def test_all_intervals_hold_at_once_what_is_true() -> None:
    """Of linear functions of twelve bits, whose effects are their coefficients."""
    assert half_width(1) == pytest.approx(1.96, abs=1e-3)
    assert half_width(12) == pytest.approx(2.865, abs=1e-3)
    held = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        rows = (torch.rand(30, 12, generator=generator) < 0.5).double()
        true = 0.002 * torch.randn(12, generator=generator, dtype=torch.float64)
        noise = 0.001 * torch.randn(30, generator=generator, dtype=torch.float64)
        surrogate = fit(rows, 0.05 + rows @ true + noise, 0.001**2)
        pairs = zip(effects_of_bits(surrogate, 12), true, strict=True)
        held.append(all(effect.low <= float(own) <= effect.high for effect, own in pairs))
    assert np.mean(held) >= LEVEL - 0.15, f"{sum(held)} of {len(held)}"


def trial(number: int, bits: str, mrr: float) -> Trial:
    design = Design(Architecture.parse(bits))
    return Trial(number, design, number, Origin.SOBOL, TrialState.COMPLETED, 1, 0.0, mrr=mrr)


def test_too_few_designs_explain_nothing() -> None:
    assert explain([trial(0, "000", 0.1)], 3) is None
    assert explain([trial(0, "000", 0.1), trial(1, "001", 0.1)], 3) is None, "no spread"
    few = explain([trial(0, "000", 0.1), trial(1, "001", 0.2)], 3)
    assert few is not None
    assert few.calibration is None


def test_the_way_to_the_next_design_ends_at_it() -> None:
    bits = ["000", "001", "010", "100"]
    trials = [trial(number, own, 0.1 + 0.05 * own.count("1")) for number, own in enumerate(bits)]
    found = explain([*trials, replace(trial(4, "111", 0), state=TrialState.FAILED, mrr=None)], 3)
    assert found is not None
    assert found.next is not None
    assert sum(found.next.design) == 2, "two bits are better than one, and all three have failed"
    assert len(found.next.theta) == Ascent().steps + 1
    assert [chance > 0.5 for chance in found.next.theta[-1]] == [bool(bit) for bit in found.next.design]
    assert 0 < found.next.arrived <= found.next.restarts
    wide = explain([trial(n, "-".join([own] * 12), 0.1 + 0.05 * own.count("1")) for n, own in enumerate(bits)], 36)
    assert wide is not None
    assert wide.next is not None
    assert 0 <= wide.next.arrived <= wide.next.restarts, "the design was drawn, and need not be where any start ends"
    every = [trial(number, f"{number:03b}", 0.1 + 0.01 * number) for number in range(8)]
    exhausted = explain(every, 3)
    assert exhausted is not None
    assert exhausted.next is None, "no design is left"


def test_the_share_explained_is_that_of_the_variance() -> None:
    observed = (0.1, 0.2, 0.3)
    assert Calibration(observed, observed, (0.1,) * 3).share_explained == 1
    assert Calibration(observed, (0.2,) * 3, (0.05,) * 3).share_explained == pytest.approx(0)
    assert Calibration(observed, (0.2,) * 3, (0.05,) * 3).covered(1.0) == 1
