"""Functions of bits on which methods of search are compared; all are maximised. `search_quality.py` runs them.

Each maker takes a seed and returns one instance: where an instance is random, another seed is another one.
What a search is told of a design is an *observation*; what it is judged by is the *true value*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import logsumexp

from search_spaces.mixed import MixedSpace

Bits = tuple[int, ...]
Levels = tuple[float, ...]
"""Of a mixed space (`search_spaces/mixed.py`)"""
Floats = NDArray[np.float64]
TABLE = Path(__file__).with_name("damoe_bench.parquet")


@dataclass(frozen=True)
class Problem:
    """One instance, over {0,1}^bits, or over a space that has other parameters behind its bits."""

    bits: int
    value: Callable[[Any], float]
    """True value of a design: of bits, or of levels."""
    observe: Callable[[Any, np.random.Generator], float]
    """One evaluation, whose noise comes from the generator alone."""
    noise_sd: float = 0.0
    """Typical standard deviation of an observation about the true value; 0 where it is the true value."""
    space: MixedSpace | None = None
    """Where there is more than bits."""

    def masked(self, mask: Bits) -> Problem:
        """The same landscape with its axes turned: design x stands for x XOR `mask`."""

        def turned(design: Bits) -> Bits:
            return tuple(bit ^ turn for bit, turn in zip(design, mask, strict=True))

        return Problem(
            self.bits,
            lambda design: self.value(turned(design)),
            lambda design, generator: self.observe(turned(design), generator),
            self.noise_sd,
        )


class Purpose(IntEnum):
    """Of random draws: those of one purpose tell nothing of those of another."""

    INSTANCE = 1
    MASK = 2
    NOISE = 3
    METHOD = 4
    DURATION = 5


def draws(purpose: Purpose, *of: int) -> np.random.Generator:
    """The generator that belongs to the numbers `of`, e.g. a seed."""
    return np.random.default_rng([int(purpose), *of])


@dataclass
class Evaluations:
    """Those of one search on one instance. The n-th one of a design has the same noise for every method."""

    problem: Problem
    seed: int
    values: list[float] = field(default_factory=list)
    """True values of what was evaluated, in order."""
    _repeats: Counter[Bits | Levels] = field(default_factory=Counter)

    def observe(self, design: Bits | Levels) -> float:
        """Evaluate it once more."""
        if self.problem.space is None:
            number = int("".join(map(str, design)), 2)
        else:
            number = int.from_bytes(np.asarray(design, dtype=np.float64).tobytes())
        noise = draws(Purpose.NOISE, self.seed, self._repeats[design], number)
        self._repeats[design] += 1
        self.values.append(self.problem.value(design))
        return self.problem.observe(design, noise)


class Family(StrEnum):
    """What the instances of one maker have in common."""

    CONTAMINATION = "contamination-25"
    LABS_30 = "labs-30"
    LABS_50 = "labs-50"
    SAT_28 = "sat-28"
    SAT_60 = "sat-60"
    ISING = "ising-24"
    LAYERS = "layers-36"
    DAMOE = "damoe-bench-6"
    MIXED = "mixed-16"


def instance(family: Family, seed: int) -> Problem:
    """The instance of `family` that belongs to `seed`, its axes turned by a random mask of the same seed.

    Without the mask a method that begins with a design of its own, such as all zeros, might be given a good or a bad
    one by how a family happens to be coded. (The effects of `mixed-16` are symmetric as they are.)
    """
    problem = MAKERS[family](seed)
    if problem.space is not None:
        return problem
    generator = draws(Purpose.MASK, seed, problem.bits)
    return problem.masked(tuple(int(bit) for bit in generator.integers(2, size=problem.bits)))


def _exact(bits: int, value: Callable[[Bits], float]) -> Problem:
    return Problem(bits, value, lambda design, _: value(design))


def labs(bits: int) -> Problem:
    """Low-autocorrelation binary sequences: the merit factor n^2 / (2 E), E the sum over k of C_k^2.

    C_k is the aperiodic autocorrelation of the +-1 sequence 2 z - 1. Golay, The merit factor of long low
    autocorrelation binary sequences, IEEE Trans. Inf. Theory 28 (1982). The best factors are 7.63 at 30 bits (E = 59)
    and 8.17 at 50 (E = 153): Packebusch and Mertens, J. Phys. A 49 (2016), 165001.
    """

    def merit(design: Bits) -> float:
        spins = 2 * np.asarray(design, dtype=np.int64) - 1
        correlations = np.correlate(spins, spins, mode="full")[bits:]
        return bits**2 / (2 * float((correlations**2).sum()))

    return _exact(bits, merit)


CLAUSES_A_VARIABLE = 10
MOST_WEIGHT = 10


def weighted_sat(bits: int, seed: int) -> Problem:
    """Weighted MaxSAT, 3 literals a clause: the satisfied share of the total weight.

    Uniform random instances of our own, for the files of the MaxSAT evaluations that Oh et al. use (Combinatorial
    Bayesian optimization using the graph Cartesian product, NeurIPS 2019: 28, 43 and 60 variables) are not at hand:
    ten clauses a variable, over three distinct variables, each negated with probability 1/2, weights 1 to 10.
    """
    generator = draws(Purpose.INSTANCE, seed, bits)
    clauses = CLAUSES_A_VARIABLE * bits
    variables = np.argsort(generator.random((clauses, bits)), axis=1)[:, :3]
    wanted = generator.integers(2, size=(clauses, 3))
    weights = generator.integers(1, MOST_WEIGHT + 1, size=clauses)

    def share(design: Bits) -> float:
        satisfied = (np.asarray(design)[variables] == wanted).any(axis=1)
        return float(weights[satisfied].sum() / weights.sum())

    return _exact(bits, share)


COUPLINGS = (0.05, 5.0)
EDGE_PRICE = 0.01


def ising(seed: int, side: int = 4) -> Problem:
    """Sparsification of a zero-field Ising model on a grid: minus (KL divergence + .01 times edges kept).

    Baptista and Poloczek, Bayesian Optimization of Combinatorial Structures (BOCS), ICML 2018, section 4.2: bit e
    keeps edge e of the model p; couplings are uniform in [.05, 5] with random signs, and p(s) is proportional to
    exp(sum over edges of 2 J s s'), as s' J s counts each edge twice. Exact, by a sum over all states.
    """
    cells = np.arange(side * side).reshape(side, side)
    left = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
    right = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
    generator = draws(Purpose.INSTANCE, seed, side)
    signs = 2 * generator.integers(2, size=len(left)) - 1
    energies = 2 * signs * generator.uniform(*COUPLINGS, size=len(left))
    # A state and its negative are equally likely: those with the last spin up are enough.
    states = 2.0 * ((np.arange(1 << (side * side - 1))[:, None] >> np.arange(side * side)) & 1) - 1
    products = states[:, left] * states[:, right]  # [states, edges]
    full = products @ energies
    log_sum = logsumexp(full)
    moments = np.exp(full - log_sum) @ products

    def value(design: Bits) -> float:
        kept = np.asarray(design, dtype=np.float64)
        divergence = (energies * (1 - kept)) @ moments + logsumexp(products @ (energies * kept)) - log_sum
        return -float(divergence + EDGE_PRICE * kept.sum())

    return _exact(len(left), value)


STAGES = 25
LIMIT, TOLERANCE = 0.1, 0.05
SCENARIOS, TRUE_SCENARIOS = 100, 10_000
CONTAMINATION_NOISE = 0.23


def contamination(seed: int, stages: int = STAGES, true_scenarios: int = TRUE_SCENARIOS) -> Problem:
    """Contamination control of a food chain: minus the sum over stages of (prevention cost + violation).

    Hu, Hu, Xu, Wang and Cao, Contamination control in food supply chain, Winter Simulation Conference 2010; constants
    and penalised form of Baptista and Poloczek (as for `ising`), section 4.3: cost 1, rate of spread Beta(1, 17/3), of
    restoration Beta(1, 3/7), start Beta(1, 30), limit .1 to be kept with probability .95, no price on the number of
    preventions. They fix 100 scenarios once and so have no noise. Here it is the simulation of Hu et al.: each
    observation draws its own 100 scenarios, and the true value is the mean over 10,000 of this seed.
    """

    def draw(generator: np.random.Generator, scenarios: int) -> tuple[Floats, Floats, Floats]:
        return (
            generator.beta(1, 30, size=scenarios),
            generator.beta(1, 17 / 3, size=(stages, scenarios)),
            generator.beta(1, 3 / 7, size=(stages, scenarios)),
        )

    def simulate(design: Bits, scenarios: tuple[Floats, Floats, Floats]) -> float:
        share, spreads, restorations = scenarios
        total = 0.0
        for bit, spread, restoration in zip(design, spreads, restorations, strict=True):
            share = (1 - restoration) * share if bit else spread * (1 - share) + share
            total += bit - (float((share < LIMIT).mean()) - (1 - TOLERANCE))
        return -total

    fixed = draw(draws(Purpose.INSTANCE, seed, stages), true_scenarios)
    return Problem(
        stages,
        lambda design: simulate(design, fixed),
        lambda design, generator: simulate(design, draw(generator, SCENARIOS)),
        CONTAMINATION_NOISE,
    )


LAYERS, BITS_OF_LAYER = 12, 3
DECAY = 0.85
CENTRE, SPREAD, LAYER_NOISE = 0.05, 0.004, 0.002


def layers(seed: int, depth: int = LAYERS) -> Problem:
    """Three bits a layer, no interaction between layers, effects that fade with depth, and noise.

    With spins s = 2 z - 1, layer l (from 0) adds .85^l times (sum of a_i s_i + sum of b_ij s_i s_j), a and b standard
    normal. Centre and scale are those of MRR: .05, with a standard deviation of .004 over all designs. The noise is
    normal with a standard deviation of .002, half of that. Made by us after what designs of MixRec look like.
    """
    generator = draws(Purpose.INSTANCE, seed, depth)
    fade = DECAY ** np.arange(depth)[:, None]
    pairs = np.array(list(combinations(range(BITS_OF_LAYER), 2)))
    single = fade * generator.normal(size=(depth, BITS_OF_LAYER))
    paired = fade * generator.normal(size=(depth, len(pairs)))
    # The terms are orthogonal over all designs, so their squares add up to the variance.
    scale = SPREAD / np.sqrt((single**2).sum() + (paired**2).sum())

    def value(design: Bits) -> float:
        spins = 2.0 * np.asarray(design).reshape(depth, BITS_OF_LAYER) - 1
        products = spins[:, pairs[:, 0]] * spins[:, pairs[:, 1]]
        return float(CENTRE + scale * ((single * spins).sum() + (paired * products).sum()))

    return Problem(
        depth * BITS_OF_LAYER,
        value,
        lambda design, generator: value(design) + LAYER_NOISE * float(generator.normal()),
        LAYER_NOISE,
    )


@cache
def _trained() -> dict[Bits, Floats]:
    """[training seeds] validation MRR of each design after the last epoch."""
    rows = pq.read_table(TABLE, columns=["design", "seed", "epoch", "mrr"]).to_pylist()
    last = max(row["epoch"] for row in rows)
    found: dict[Bits, list[float]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        if row["epoch"] == last:
            found.setdefault(tuple(map(int, row["design"])), []).append(row["mrr"])
    return {design: np.array(values) for design, values in found.items()}


def damoe() -> Problem:
    """DAMoE-Bench (`damoe_bench.py`): real trainings of all 64 designs of two layers.

    An observation is the MRR of one training seed, drawn at random; the true value is the mean over all seeds. With
    the few seeds there are, that truth is itself noisy, and an observation is a part of it.
    """
    trained = _trained()
    within = np.mean([values.var() for values in trained.values()])
    return Problem(
        len(next(iter(trained))),
        lambda design: float(trained[design].mean()),
        lambda design, generator: float(generator.choice(trained[design])),
        float(np.sqrt(within)),
    )


def _mixed(seed: int) -> Problem:
    from benchmarks.mixed_problem import mixed  # knows the product's spaces

    return mixed(seed)


MAKERS: dict[Family, Callable[[int], Problem]] = {
    Family.CONTAMINATION: contamination,
    Family.LABS_30: lambda _: labs(30),
    Family.LABS_50: lambda _: labs(50),
    Family.SAT_28: lambda seed: weighted_sat(28, seed),
    Family.SAT_60: lambda seed: weighted_sat(60, seed),
    Family.ISING: ising,
    Family.LAYERS: layers,
    Family.DAMOE: lambda _: damoe(),
    Family.MIXED: _mixed,
}
