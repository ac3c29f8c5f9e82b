"""Does a search gain by what another one knows, and what does it lose where that is of no use?

    OMP_NUM_THREADS=1 python benchmarks/warm_start.py 20        seeds 0 to 19: some minutes of a core

Functions of 36 bits with pairs within a layer (`surrogate_choice.random_response`), noise of a fifth of their spread. A
source is a search of 20 trials on another such function: related (correlation .8), unrelated or opposite. The method
is the product's, surrogate, acquisition, gate and first designs, but for what would hide the effect or take long: the
acquisition is maximised over neighbours of the best designs and random ones instead of by PR, nothing is replicated and
nothing confirmed. The score is the true value of the design with the highest posterior mean, in units of the spread
of all designs. The second table says how often each source passes the gate, and how often raw ranks would let it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.surrogate_choice import LEVEL as NOISE
from benchmarks.surrogate_choice import random_bits, random_response
from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.prior_gate import LEVEL, chance_of_ranking
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.surrogate import fit, noise_of, predict
from mixrec_automl.search.transfer import PosteriorMean

BITS, INITIAL, TRIALS, RELATION = 36, 5, 20, 0.8
CHECKS = (5, 8, 12, 16, 20)
"""Numbers of trials after which scores and passes are noted."""

Response = Callable[[Tensor], Tensor]


@dataclass
class Run:
    """A search as it goes."""

    truth: Response
    generator: torch.Generator
    designs: Tensor
    prior: PriorScores | None = None
    outcomes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    scores: dict[int, float] = field(default_factory=dict)
    passes: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    """Whether the prior passes the gate, and whether it would by raw ranks"""

    def go(self) -> Run:
        self._observe()
        while True:
            model = fit(self.designs, self.outcomes, NOISE**2)
            if self.prior is not None and self._judge(model):
                model = fit(self.designs, self.outcomes, NOISE**2, prior=self.prior)
            best_first = self.designs[predict(model, self.designs)[0].argsort(descending=True, stable=True)]
            if len(self.designs) in CHECKS:
                self.scores[len(self.designs)] = float(self.truth(best_first[:1]))
            if len(self.designs) == TRIALS:
                return self
            asked = self._candidates(best_first[:4])
            values = LogNoisyExpectedImprovement(model, self.designs)(asked)
            self.designs = torch.cat([self.designs, asked[values.argmax()][None]])
            self._observe()

    def _observe(self) -> None:
        new = self.designs[len(self.outcomes) :]
        noise = torch.randn(len(new), generator=self.generator, dtype=torch.float64)
        self.outcomes = torch.cat([self.outcomes, self.truth(new) + NOISE * noise])

    def _judge(self, alone: object) -> bool:
        with torch.no_grad():
            covariance = alone.covar_module(self.designs).to_dense() + torch.diag(noise_of(alone))  # type: ignore[attr-defined, arg-type]
            predicted = self.prior(self.designs)  # type: ignore[misc]
        passed = chance_of_ranking(predicted, self.outcomes, covariance) <= LEVEL
        raw = stats.kendalltau(predicted, self.outcomes, alternative="greater").pvalue <= LEVEL
        self.passes[len(self.designs)] = passed, bool(raw)
        return passed

    def _candidates(self, best: Tensor) -> Tensor:
        near = (best[:, None] - torch.eye(BITS, dtype=torch.float64)).abs().reshape(-1, BITS)
        asked = torch.cat([near, random_bits(100, BITS, self.generator)])
        return asked[~(asked[:, None] == self.designs[None]).all(dim=-1).any(dim=1)]


def start(seed: int, own: int) -> Tensor:
    """The fixed design, then random ones."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    return torch.cat([torch.zeros(1, BITS, dtype=torch.float64), random_bits(own - 1, BITS, generator)])


def searches(seed: int) -> dict[str, Run]:
    """One without a source and one with each; all have the same function, fixed design and random ones."""
    generator = torch.Generator().manual_seed(seed)
    truth, stranger = (random_response("pairs in a layer", BITS, generator) for _ in range(2))
    sources: dict[str, Response] = {
        "related": lambda bits: RELATION * truth(bits) + (1 - RELATION**2) ** 0.5 * stranger(bits),
        "unrelated": stranger,
        "opposite": lambda bits: -truth(bits),
    }

    def noise() -> torch.Generator:
        return torch.Generator().manual_seed(20_000 + seed)

    runs = {"none": Run(truth, noise(), start(seed, INITIAL)).go()}
    for name, response in sources.items():
        known = Run(response, noise(), start(seed + 5_000, INITIAL)).go()
        model = fit(known.designs, known.outcomes, NOISE**2)
        best = known.designs[predict(model, known.designs)[0].argsort(descending=True, stable=True)]
        taken = best[best.any(dim=1)][: (INITIAL - 1) // 2]
        designs = torch.cat([start(seed, INITIAL - len(taken)), taken])
        runs[name] = Run(truth, noise(), designs, PosteriorMean(model)).go()
    return runs


def interval(differences: list[float]) -> str:
    """Mean and 95 % percentile bootstrap interval over seeds."""
    drawn = np.random.default_rng(0).choice(differences, (10_000, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{np.mean(differences):+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    passes: dict[tuple[str, int], list[tuple[bool, bool]]] = defaultdict(list)
    seeds = int(sys.argv[1])
    for seed in range(seeds):
        for name, run in searches(seed).items():
            for check in CHECKS:
                scores[name, check].append(run.scores[check])
                if run.prior is not None:
                    passes[name, check].append(run.passes[check])
        print(f"seed {seed}", file=sys.stderr, flush=True)
    print(f"\n{seeds} seeds: true value of the recommended design; of a source, minus that without one")
    print("trials      none   " + "".join(f"{name:24}" for name in ("related", "unrelated", "opposite")))
    for check in CHECKS:
        without = scores["none", check]
        row = [
            interval([own - other for own, other in zip(scores[name, check], without, strict=True)])
            for name in ("related", "unrelated", "opposite")
        ]
        print(f"{check:6}  {np.mean(without):8.2f}   " + "".join(f"{each:24}" for each in row))
    print("\nshare that passes the gate, in brackets by raw ranks")
    for check in CHECKS:
        shares = [np.mean(passes[name, check], axis=0) for name in ("related", "unrelated", "opposite")]
        print(f"{check:6}             " + "".join(f"{f'{own:.2f} ({raw:.2f})':24}" for own, raw in shares))


if __name__ == "__main__":
    main()
