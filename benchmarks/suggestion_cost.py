"""CPU-seconds of one suggestion: ours against Ax and Optuna by bits and observations, and what ours is made of.

    OMP_NUM_THREADS=1 python benchmarks/suggestion_cost.py run      # against the peers, all cells; resumable
    OMP_NUM_THREADS=1 python benchmarks/suggestion_cost.py run --bits 12 36 --observations 20 50
    python benchmarks/suggestion_cost.py table                      # of the cells that have run
    OMP_NUM_THREADS=1 python benchmarks/suggestion_cost.py parts    # ours alone, about half a minute

`run` needs `pip install -e '.[bench]'`. Each method is told of random designs, the same for all, asked for two of its
own, and then once more: that is timed, in `REPEATS` searches. What is loaded on first use is not counted.

Columns of `parts`: GP fit; ascent and choice; the whole call through Ax (replay included); log EI below the best of a
steepest ascent by bit flips from 200 starts (negative: above it).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import fmean, median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.search_methods import Method, start
from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.kernels import Columns
from mixrec_automl.search.probabilistic_reparameterization import Ascent, propose_point
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.surrogate import fit
from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import BITS_PER_LAYER, Architecture
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design
from trainers.errors import UserError

TRIALS = 50
SEARCHES = 4
NOISE = 0.0008
METHODS = (Method.OURS, Method.AX, Method.TPE, Method.OPTUNA_GP)
BITS = (12, 36, 60, 96)
OBSERVATIONS = (20, 50, 100, 200)
REPEATS = 3
OWN = 2
"""Ours (its fixed design) and Ax (one of Sobol) begin with one of their own after any number of designs told."""


def random_response(bits: int, seed: int) -> Callable[[Tensor], Tensor]:
    """A noisy MRR of designs [any, bits] -> [any], about .05 with a spread of .004."""
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(bits, generator=generator, dtype=torch.float64)

    def response(designs: Tensor) -> Tensor:
        noise = NOISE * torch.randn(len(designs), generator=generator, dtype=torch.float64)
        return 0.05 + 0.004 * (designs - 0.5) @ effects * 2 / bits**0.5 + noise

    return response


def random_designs(bits: int, seed: int, number: int = TRIALS) -> Tensor:
    """[number, bits]"""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(number, bits, generator=generator) < 0.5).double()


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


def measure(bits: int, ascent: Ascent) -> tuple[list[float], list[float], list[float], list[float]]:
    fits: list[float] = []
    ascents: list[float] = []
    calls: list[float] = []
    gaps: list[float] = []
    for seed in range(SEARCHES):
        designs = random_designs(bits, seed)
        scores = random_response(bits, seed)(designs)
        columns = Columns(bits, bits_per_layer=BITS_PER_LAYER)
        began = time.process_time()
        surrogate = fit(designs, scores, NOISE**2, columns)
        fits.append(time.process_time() - began)
        acquisition = LogNoisyExpectedImprovement(surrogate, designs)
        good = designs[scores.argsort(descending=True)]
        began = time.process_time()
        _, value = propose_point(acquisition, Relaxation.of_bits(bits), designs, good, ascent, seed)
        ascents.append(time.process_time() - began)
        gaps.append(local_search(acquisition, designs, seed) - value)

        space = DamoeSpace(backbone_layers=bits // BITS_PER_LAYER)
        # The fixed design has a replicate: without one the next proposal would be that, and ask no surrogate.
        trials = [
            Trial(number, Design(space.fixed_design), number, Origin.FIXED, TrialState.COMPLETED, 1, 0.0, mrr=0.05)
            for number in (0, 1)
        ]
        for number, (row, score) in enumerate(zip(designs.int().tolist(), scores.tolist(), strict=True), start=2):
            design = Design(Architecture.from_bits(row))
            trials.append(Trial(number, design, 0, Origin.SOBOL, TrialState.COMPLETED, 1, 0.0, mrr=score))
        began = time.process_time()
        if AxProposer(space, ascent=ascent).propose(trials, seed=0).kernel == "":
            raise AssertionError("no surrogate was asked, so that nothing of it is timed")
        calls.append(time.process_time() - began)
    return fits, ascents, calls, gaps


def parts() -> None:
    """Print what one call of ours is made of."""
    print(f"{TRIALS} trials, mean of {SEARCHES} searches, {torch.get_num_threads()} thread(s)")
    print("bits  expectation     fit  ascent  whole call  below local search (worst)")
    measure(9, Ascent())  # what is loaded on first use
    for bits, ascent in ((9, Ascent()), (12, Ascent()), (12, Ascent(exact_points=0)), (36, Ascent()), (96, Ascent())):
        fits, ascents, calls, gaps = measure(bits, ascent)
        name = "exact" if 1 << bits <= ascent.exact_points else "Monte Carlo"
        print(
            f"{bits:>4}  {name:11}  {fmean(fits):6.3f}  {fmean(ascents):6.3f}  {fmean(calls):10.3f}  {max(gaps):+.4f}"
        )


def ask(method: Method, bits: int, observations: int, seed: int) -> float:
    """CPU-seconds of one suggestion after `observations` designs.

    The last `OWN` of them are the method's own, so that a model proposes what is timed.
    """
    response, search = random_response(bits, seed), start(method, bits, seed, 1000, is_noisy=False)
    for given in random_designs(bits, seed, observations).int().tolist()[OWN:]:
        search.tell(tuple(given), float(response(torch.tensor([given]).double())))
    for _ in range(OWN):
        design = search.ask()
        search.tell(design, float(response(torch.tensor([design]).double())))
    began = time.process_time()
    search.ask()
    return time.process_time() - began


def run(path: Path, bits: list[int], observations: list[int], console: Console) -> None:
    """Cells that `path` lacks, cheap ones first; each is written as soon as it is there."""
    torch.set_num_threads(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = read(path)
    cells = [cell for cell in product(observations, bits, METHODS) if key(*cell) not in found]
    for method in {method for *_, method in cells}:
        ask(method, bits=6, observations=12, seed=0)
    for count, width, method in cells:
        found[key(count, width, method)] = [ask(method, width, count, seed) for seed in range(REPEATS)]
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(found, indent=1), "utf-8")
        scratch.replace(path)
        console.print(f"{method}, {width} bits, {count} observations: {median(found[key(count, width, method)]):.3f}")


def key(observations: int, bits: int, method: Method) -> str:
    return f"{observations} {bits} {method}"


def read(path: Path) -> dict[str, list[float]]:
    """Seconds of every cell that has run."""
    found: dict[str, list[float]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def write(path: Path, console: Console) -> None:
    """Medians; a dash where a cell has not run."""
    found = read(path)
    table = Table(title=f"CPU-seconds of one suggestion, median of {REPEATS}")
    for name in ("bits", "observations", *METHODS):
        table.add_column(name, justify="right")
    for width in BITS:
        for count in OBSERVATIONS:
            cells = [found.get(key(count, width, method)) for method in METHODS]
            table.add_row(str(width), str(count), *(f"{median(cell):.3f}" if cell else "-" for cell in cells))
        table.add_section()
    console.print(table)


def main() -> int:
    """Exit code 2: the user can mend it."""
    from mixrec_automl import paths

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "parts"))
    parser.add_argument("--bits", type=int, nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--observations", type=int, nargs="+", choices=OBSERVATIONS, default=list(OBSERVATIONS))
    given = parser.parse_args()
    path = paths.home() / "suggestion-cost.json"
    try:
        if given.command == "run":
            run(path, given.bits, given.observations, Console())
        elif given.command == "parts":
            parts()
        else:
            write(path, Console(width=None if sys.stdout.isatty() else 120))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
