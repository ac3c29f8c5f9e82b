"""CPU-seconds of one suggestion at 9 to 96 bits, part by part, and what probabilistic reparameterization reaches.

    OMP_NUM_THREADS=1 python benchmarks/suggestion_cost.py        about half a minute

Columns: GP fit; ascent and choice; the whole call through Ax (replay included); log EI below the best of a steepest
ascent by bit flips from 200 starts (negative: above it).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor

from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.probabilistic_reparameterization import Ascent, propose_point
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.surrogate import fit
from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import BITS_PER_LAYER, Architecture
from search_spaces.damoe import DamoeSpace

TRIALS = 50
SEARCHES = 4
NOISE = 0.0008


def random_search(bits: int, seed: int) -> tuple[Tensor, Tensor]:
    """Designs [TRIALS, bits] and their MRR [TRIALS], about .05 with a spread of .004."""
    generator = torch.Generator().manual_seed(seed)
    designs = (torch.rand(TRIALS, bits, generator=generator) < 0.5).double()
    effects = torch.randn(bits, generator=generator, dtype=torch.float64)
    scores = 0.05 + 0.004 * (designs - 0.5) @ effects * 2 / bits**0.5
    return designs, scores + NOISE * torch.randn(TRIALS, generator=generator, dtype=torch.float64)


def local_search(acquisition: Callable[[Tensor], Tensor], observed: Tensor, seed: int) -> float:
    """Highest acquisition value of steepest ascents by single flips from the observed and 150 random designs."""
    generator = torch.Generator().manual_seed(seed)
    bits = observed.shape[1]
    designs = torch.cat([observed, (torch.rand(150, bits, generator=generator) < 0.5).double()])
    current = acquisition(designs)
    while True:
        flips = designs[:, None, :].repeat(1, bits, 1)
        flips[:, torch.arange(bits), torch.arange(bits)] = 1 - designs
        best, bit = acquisition(flips.flatten(0, 1)).reshape(-1, bits).max(dim=1)
        better = best > current
        if not better.any():
            return float(current.max())
        rows = torch.arange(len(designs))[better]
        designs[rows] = flips[rows, bit[rows]]
        current = torch.maximum(current, best)


def timed(rows: list[float], action: Callable[[], object]) -> None:
    began = time.process_time()
    action()
    rows.append(time.process_time() - began)


def measure(bits: int, ascent: Ascent) -> tuple[list[float], list[float], list[float], list[float]]:
    fits: list[float] = []
    ascents: list[float] = []
    calls: list[float] = []
    gaps: list[float] = []
    for seed in range(SEARCHES):
        designs, scores = random_search(bits, seed)
        timed(fits, lambda d=designs, s=scores: fit(d, s, NOISE**2))  # type: ignore[misc]
        acquisition = LogNoisyExpectedImprovement(fit(designs, scores, NOISE**2), designs)
        good = designs[scores.argsort(descending=True)]
        began = time.process_time()
        _, value = propose_point(acquisition, Relaxation.of_bits(bits), designs, good, ascent, seed)
        ascents.append(time.process_time() - began)
        gaps.append(local_search(acquisition, designs, seed) - value)

        space = DamoeSpace(backbone_layers=bits // BITS_PER_LAYER)
        trials = [Trial(0, space.fixed_design, 0, Origin.FIXED, TrialState.COMPLETED, 1, 0.0, 0.05)]
        for number, (row, score) in enumerate(zip(designs.int().tolist(), scores.tolist(), strict=True), start=1):
            design = Architecture.from_bits(row)
            trials.append(Trial(number, design, 0, Origin.SOBOL, TrialState.COMPLETED, 1, 0.0, score))
        timed(calls, lambda s=space, t=trials: AxProposer(s, ascent=ascent).propose(t, seed=0))  # type: ignore[misc]
    return fits, ascents, calls, gaps


def main() -> None:
    print(f"{TRIALS} trials, mean of {SEARCHES} searches, {torch.get_num_threads()} thread(s)")
    print("bits  expectation     fit  ascent  whole call  below local search (worst)")
    measure(9, Ascent())  # what is loaded on first use
    for bits, ascent in ((9, Ascent()), (12, Ascent()), (12, Ascent(exact_bits=0)), (36, Ascent()), (96, Ascent())):
        fits, ascents, calls, gaps = measure(bits, ascent)
        name = "exact" if bits <= ascent.exact_bits else "Monte Carlo"
        print(
            f"{bits:>4}  {name:11}  {fmean(fits):6.3f}  {fmean(ascents):6.3f}  {fmean(calls):10.3f}  {max(gaps):+.4f}"
        )


if __name__ == "__main__":
    main()
