"""Several points at once: greedy, each beside those before it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from mixrec_automl.search import suggestion
from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.batch import Beliefs
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.relaxation import Relaxation, all_points
from mixrec_automl.search.replication import design_to_train
from mixrec_automl.search.suggestion import Observed, suggest, suggest_batch
from mixrec_automl.search.surrogate import fit
from search_spaces.mixed import Categorical, Integer, MixedSpace, Real, Setting

NOISE = 0.2
DRAWS = 1 << 15


def beliefs_of(bits: int, observed: int, seed: int, noise_variance: float | None = None) -> Beliefs:
    """About a random response to `bits` bits, of so many random designs."""
    generator = torch.Generator().manual_seed(seed)
    designs = all_points([2] * bits)[torch.randperm(2**bits, generator=generator)[:observed]]
    effects = torch.randn(bits, generator=generator, dtype=torch.float64)
    outcomes = designs @ effects + NOISE * torch.randn(observed, generator=generator, dtype=torch.float64)
    surrogate = fit(designs, outcomes, noise_variance or NOISE**2)
    return Beliefs(Relaxation.of_bits(bits), surrogate, torch.unique(designs, dim=0), noise_variance)


def first_two(beliefs: Beliefs) -> list[Tensor]:
    none = beliefs.observed[:0]
    return [point for point, _ in islice(beliefs.points(beliefs.observed, none, Ascent(), seed=1), 2)]


def free(beliefs: Beliefs, *taken: Tensor) -> Tensor:
    every = all_points([2] * len(beliefs.relaxation.factors))
    gone = torch.cat([beliefs.observed, *(point[None] for point in taken)])
    return every[~(every[:, None] == gone).all(dim=2).any(dim=1)]


@pytest.mark.parametrize("bits", [4, 14])
def test_a_watched_ascent_is_the_one_that_proposes(bits: int) -> None:
    """Both by the exact expectation and by samples."""
    beliefs = beliefs_of(bits, 6, seed=0)
    point, phi = beliefs.watched(beliefs.observed, Ascent(), seed=1)
    assert torch.equal(point, first_two(beliefs)[0])
    assert phi.shape == (Ascent().steps + 1, Ascent().restarts, bits)
    assert not torch.equal(phi[0], phi[1]), "a step each, not the same tensor over and over"
    assert bool(((phi >= 0) & (phi <= 1)).all())
    gained = [exact_gain(beliefs, phi[place]) for place in (0, -1)]
    assert gained[1] > gained[0]


def exact_gain(beliefs: Beliefs, phi: Tensor) -> float:
    """Mean over restarts of the acquisition value at each one's most likely design."""
    with torch.no_grad():
        return float(LogNoisyExpectedImprovement(beliefs.surrogate, beliefs.observed)((phi > 0.5).double()).mean())


@pytest.mark.parametrize(("bits", "observed"), [(2, 2), (3, 3), (3, 5)])
@pytest.mark.parametrize("seed", range(2))
def test_the_second_point_is_the_best_beside_the_first(bits: int, observed: int, seed: int) -> None:
    """Against every free design: by the acquisition function, and by plain joint draws of all values."""
    beliefs = beliefs_of(bits, observed, seed)
    first, second = first_two(beliefs)
    alone = LogNoisyExpectedImprovement(beliefs.surrogate, beliefs.observed)
    assert torch.equal(first, free(beliefs)[alone(free(beliefs)).argmax()])
    beside = LogNoisyExpectedImprovement(beliefs.surrogate, beliefs.observed, first[None])
    assert torch.equal(second, free(beliefs, first)[beside(free(beliefs, first)).argmax()])

    candidates = free(beliefs, first)
    known = torch.cat([beliefs.observed, first[None]])
    with torch.no_grad():
        posterior = beliefs.surrogate.posterior(torch.cat([candidates, known]))
        root = torch.linalg.cholesky(posterior.distribution.covariance_matrix + 1e-9 * torch.eye(len(posterior.mean)))
    normal = torch.randn(DRAWS, len(root), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = posterior.mean[:, 0] + normal @ root.T
    gains = (values[:, : len(candidates)] - values[:, len(candidates) :].amax(dim=1, keepdim=True)).clamp_min(0)
    found = gains.mean(dim=0)
    [chosen] = found[(candidates == second).all(dim=1)]
    assert chosen >= 0.9 * found.max(), "64 fantasies and 32,768 draws differ a little"


def test_beside_the_first_another_is_best_than_without_it() -> None:
    changed = 0
    for seed in range(4):
        beliefs = beliefs_of(5, 8, seed)
        first, second = first_two(beliefs)
        rest = free(beliefs, first)
        changed += not torch.equal(
            second, rest[LogNoisyExpectedImprovement(beliefs.surrogate, beliefs.observed)(rest).argmax()]
        )
    assert changed


def test_each_point_of_a_batch_may_be_a_replicate() -> None:
    """By the knowledge gradient beside those before it: with much noise, some are and some are not."""
    kinds = set()
    for seed in range(4):
        beliefs = beliefs_of(3, 5, seed, noise_variance=1.0)
        first, second = first_two(beliefs)
        rest = free(beliefs, first)
        beside = LogNoisyExpectedImprovement(beliefs.surrogate, beliefs.observed, first[None])
        new = rest[beside(rest).argmax()]
        assert torch.equal(second, design_to_train(beliefs.surrogate, new, beliefs.observed, first[None], 1.0))
        kinds |= {any(torch.equal(point, row) for row in beliefs.observed) for point in (first, second)}
    assert kinds == {True, False}


SPACE = MixedSpace(
    (
        Categorical("kind", ("a", "b", "c")),
        Categorical("is_on", (False, True)),
        Integer("layers", 1, 6),
        Real("rate", 1e-4, 1e-1, log=True),
    )
)
SMALL = MixedSpace(SPACE.parameters[:2])


def score(setting: Setting) -> float:
    return "abc".index(str(setting["kind"])) + 0.5 * bool(setting["is_on"]) - 0.1 * int(setting.get("layers", 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("noise_variance", [None, 4.0])
@pytest.mark.parametrize("space", [SPACE, SMALL], ids=["mixed", "discrete"])
def test_a_batch_is_what_would_come_one_after_another(
    space: MixedSpace, noise_variance: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quasi-random one and two of the surrogate, which is fitted once."""
    history = [Observed(one, score(one)) for one in suggest_batch(space, [], 2, seed=3)]
    fits = []
    monkeypatch.setattr(suggestion, "fit", lambda *given: fits.append(1) or fit(*given))
    options: dict[str, Any] = {"initial": 3, "noise_variance": noise_variance, "ascent": Ascent(restarts=12, steps=10)}
    together = suggest_batch(space, history, 3, seed=8, **options)
    assert len(fits) == 1
    for setting in together:
        # A real value comes back from its setting with a rounding error, as a pending point.
        alone = suggest(space, history, seed=8, **options)
        assert space.levels(alone) == pytest.approx(space.levels(setting), abs=1e-6)
        history.append(Observed(setting, None, is_pending=True))
    assert len(fits) == 3


def test_a_batch_ends_with_the_space() -> None:
    history = [Observed(one, score(one)) for one in suggest_batch(SMALL, [], 3, seed=0)]
    rest = suggest_batch(SMALL, history, 10, seed=0, initial=4)
    assert len({tuple(one.items()) for one in rest}) == len(rest) == 3
    history += [Observed(one, None, is_pending=True) for one in rest]
    with pytest.raises(SpaceExhausted):
        suggest_batch(SMALL, history, 2, seed=0, initial=4)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        suggest_batch(SPACE, [], 0, seed=0)
