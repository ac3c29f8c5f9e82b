"""What do workers side by side cost? The product's search with one worker and with eight, in simulated time.

    OMP_NUM_THREADS=1 python benchmarks/asynchronous_workers.py run     # goes on where interrupted
    python benchmarks/asynchronous_workers.py table                     # `docs/benchmarks.md` quotes it

With several workers a design is proposed while others are pending, and so knows less than in a sequential search of
as many evaluations. What that costs is told as a share of what the sequential search has over random designs.

The simulation is the loop of `mixrec_automl/controller.py`: one proposal at a time, a design is kept waiting where
there are several workers, a worker that is free takes it at once. Proposals take no time. How long an evaluation
takes is drawn for each seed, log-normal, and is the same for the n-th evaluation of every way. Instances, noise,
records and the score are those of `search_quality.py`: the true value of the recommended design. The share is told of
the best design tried as well: what is lost there is lost by proposing, the rest by choosing among what was tried.

Families, seeds and budget below were committed before the first run.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks import search_quality
from benchmarks.problems import Bits, Evaluations, Family, Floats, Purpose, draws, instance
from benchmarks.search_methods import Method, Ours
from benchmarks.search_quality import Cell, Record, read, record_of
from benchmarks.search_quality_table import FEWEST_SEEDS, Verdict
from trainers.errors import UserError
from trainers.statistics import RESAMPLES, bootstrap_intervals

FAMILIES = (Family.ISING, Family.LAYERS, Family.CONTAMINATION)
SEEDS = range(2000, 2012)
EVALUATIONS = 50
SPREAD = 0.5
"""Standard deviation of the log of a duration: two thirds of them are between .6 and 1.65 of the median."""
LEAST_SHARE = 0.9
"""Of the sequential advantage, that eight workers are to keep."""


class Way(StrEnum):
    RANDOM = "random"
    ONE = "1 worker"
    EIGHT = "8 workers"


WORKERS = {Way.ONE: 1, Way.EIGHT: 8}


def cells() -> Iterator[Cell[Way]]:
    """All of the plan, in the order in which they run."""
    for seed in SEEDS:
        for family in FAMILIES:
            for way in Way:
                yield Cell(family, way, seed, EVALUATIONS)


def search(cell: Cell[Way]) -> Record:
    """Run it from the start. Random designs are the same for any number of workers."""
    if cell.method is Way.RANDOM:
        return search_quality.search(Cell(cell.family, Method.RANDOM, cell.seed, cell.evaluations))
    return simulate(cell, WORKERS[cell.method])


def simulate(cell: Cell[Way], workers: int) -> Record:
    """The product's search with so many workers."""
    problem = instance(cell.family, cell.seed)
    method = Ours(problem.bits, cell.seed, cell.evaluations, is_noisy=problem.noise_sd > 0)
    evaluations = Evaluations(problem, cell.seed)
    durations = draws(Purpose.DURATION, cell.seed).lognormal(0, SPREAD, size=cell.evaluations).tolist()
    waiting: deque[Bits] = deque()
    running: list[tuple[float, int, Bits, float]] = []
    """A heap: when it ends, which one it is, its design and what will be observed"""
    now, proposed, told, seconds = 0.0, 0, 0, 0.0
    to_wait_after = -1
    while told < cell.evaluations:
        while waiting and len(running) < workers:
            design, number = waiting.popleft(), len(evaluations.values)
            heapq.heappush(running, (now + durations[number], number, design, evaluations.observe(design)))
        may_propose = proposed < cell.evaluations and not waiting and told != to_wait_after
        began = time.process_time()
        if may_propose and (workers > 1 or not running):
            asked = method.ask_beside()
            if asked is None:
                to_wait_after = told
            else:
                waiting.append(asked)
                proposed += 1
        else:
            now, _, design, observed = heapq.heappop(running)
            method.tell(design, observed)
            told += 1
        seconds += time.process_time() - began
    return record_of(cell, problem.value(method.recommend()), evaluations, seconds)


@dataclass(frozen=True)
class Kept:
    """What the searches of one family have over random designs on the same seeds."""

    seeds: int
    sequential: float
    """Mean advantage of one worker, with its 95 % percentile bootstrap interval over seeds."""
    sequential_interval: tuple[float, float]
    parallel: float
    """That of eight."""
    parallel_interval: tuple[float, float]

    share: float
    """parallel / sequential."""
    share_interval: tuple[float, float]
    """Not numbers where the sequential search is not clearly better than random: a share of nothing says nothing."""

    @property
    def verdict(self) -> str:
        low, high = self.share_interval
        if self.seeds < FEWEST_SEEDS:
            return Verdict.TOO_FEW
        if low >= LEAST_SHARE:
            return "kept"
        return "lost" if high < LEAST_SHARE else Verdict.OPEN


def kept(random: Floats, one: Floats, eight: Floats) -> Kept:
    """From the scores of the same seeds, each [at least two seeds]."""
    advantages = np.stack([one - random, eight - random], axis=1)
    intervals = [(float(low), float(high)) for low, high in bootstrap_intervals(advantages, seed=0)]
    sequential, parallel = advantages.mean(axis=0).tolist()
    share_interval = (float("nan"), float("nan"))
    if intervals[0][0] > 0:
        rows = np.random.default_rng(0).integers(len(advantages), size=(RESAMPLES, len(advantages)))
        means = advantages[rows].mean(axis=1)
        low, high = np.quantile(means[:, 1] / means[:, 0], [0.025, 0.975])
        share_interval = (float(low), float(high))
    return Kept(
        len(advantages), sequential, intervals[0], parallel, intervals[1], parallel / sequential, share_interval
    )


def write(records: Sequence[Record], console: Console) -> None:
    """Print a row for each family that has two seeds or more.

    Raises:
        UserError: none has.
    """
    table = Table(
        title="true value of the recommended design over that of random designs, 95 % intervals over seeds",
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("family", "seeds", "random", "1 worker", "8 workers", "share kept", "at least 90 %", "of best tried"):
        table.add_column(name, no_wrap=True)
    for family in FAMILIES:
        by_way = {way: {one.seed: one for one in records if (one.family, one.method) == (family, way)} for way in Way}
        seeds = sorted(set.intersection(*(set(own) for own in by_way.values())))
        if len(seeds) < 2:
            continue
        random, one, eight = (np.array([by_way[way][seed].score for seed in seeds]) for way in Way)
        found = kept(random, one, eight)
        tried = kept(*(np.array([by_way[way][seed].best for seed in seeds]) for way in Way))
        table.add_row(
            family,
            f"{found.seeds} of {len(SEEDS)}",
            f"{random.mean():.4g}",
            _interval(found.sequential, found.sequential_interval, "+.3g"),
            _interval(found.parallel, found.parallel_interval, "+.3g"),
            _interval(found.share, found.share_interval, ".0%"),
            found.verdict,
            _interval(tried.share, tried.share_interval, ".0%"),
        )
    if not table.row_count:
        raise UserError("there are not enough records yet: give `run` first, with the same --folder")
    console.print(table)


def _interval(mean: float, interval: tuple[float, float], style: str) -> str:
    told = "no interval" if np.isnan(interval).any() else f"{interval[0]:{style}} to {interval[1]:{style}}"
    return f"{mean:{style}} ({told})"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1: a search raised; 2: the user can mend it."""
    from mixrec_automl import paths

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, help="of the records; default: search-quality in $MIXREC_HOME")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    path = (given.folder or paths.home() / "search-quality") / "asynchronous.jsonl"
    try:
        if given.command == "run":
            return int(search_quality.run(cells(), path, console, search) > 0)
        write(read(path), console)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
