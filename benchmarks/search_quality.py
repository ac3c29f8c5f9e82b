"""How good is the design that a search recommends? Ours against random, evolution, Optuna and Ax, on paired seeds.

    OMP_NUM_THREADS=1 python benchmarks/search_quality.py run           # the plan below; goes on where interrupted
    OMP_NUM_THREADS=1 python benchmarks/search_quality.py run --quick   # two families, two other seeds: 3 minutes
    python benchmarks/search_quality.py table [--quick]                 # `docs/benchmarks.md` quotes it

It needs `pip install -e '.[bench]'`. `problems.py` has the families, `search_methods.py` the methods. A seed decides on
the instance, on the random mask that turns its axes and on the method's own draws. The n-th observation of a design has
the same noise for every method. The score is the true value of the recommended design.

The plan below was committed before its first run. Whoever tunes the search takes `--tuning`, whose seeds are others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console

from benchmarks.kept_lines import append_line, whole_lines
from benchmarks.mixed_methods import start_mixed
from benchmarks.problems import Evaluations, Family, instance
from benchmarks.search_methods import Method, Search, start
from trainers.errors import UserError

TIERS = (
    (Method.OURS, Method.RANDOM, Method.EVOLUTION, Method.TPE),
    (Method.OPTUNA_GP,),
    (Method.AX,),
)
"""What is cheap goes first, so that early tables have many seeds of something."""
VERSIONS = ("mixrec-automl", "ax-platform", "botorch", "optuna", "torch")


@dataclass(frozen=True)
class Plan:
    """Which cells of family, method and seed are run."""

    name: str
    evaluations: dict[Family, int]
    """Of one search."""
    seeds: range
    seeds_of_ax: range
    """The first ones of `seeds`: Ax takes longest by far."""

    def cells(self) -> Iterator[Cell[Method]]:
        """In the order in which they run."""
        for methods in TIERS:
            for seed in self.seeds:
                for family, evaluations in self.evaluations.items():
                    for method in methods:
                        if method is not Method.AX or seed in self.seeds_of_ax:
                            yield Cell(family, method, seed, evaluations)


M = TypeVar("M", bound=StrEnum)


@dataclass(frozen=True)
class Cell(Generic[M]):
    """One search."""

    family: Family
    method: M
    seed: int
    evaluations: int


EVALUATIONS = {family: 12 if family is Family.DAMOE else 50 for family in Family}
CONFIRMATORY = Plan("confirmatory", EVALUATIONS, seeds=range(1000, 1020), seeds_of_ax=range(1000, 1008))
TUNING = Plan("tuning", EVALUATIONS, seeds=range(8), seeds_of_ax=range(4))
QUICK = Plan("quick", {Family.LAYERS: 8, Family.DAMOE: 12}, seeds=range(2), seeds_of_ax=range(2))


@dataclass(frozen=True)
class Record:
    """What one cell came to."""

    family: str
    method: str
    seed: int
    evaluations: int
    score: float
    """True value of the recommended design."""
    best: float
    """Highest true value among the evaluated designs."""
    cpu_seconds: float
    """Of this process, for one suggestion and the recording of its outcome, on average."""
    values: list[float]
    """True values of the evaluated designs, in order."""
    versions: dict[str, str]


def search(cell: Cell[Method]) -> Record:
    """Run it from the start."""
    problem = instance(cell.family, cell.seed)
    method: Search[Any]
    if problem.space is None:
        method = start(cell.method, problem.bits, cell.seed, cell.evaluations, is_noisy=problem.noise_sd > 0)
    else:
        method = start_mixed(cell.method, cell.seed, cell.evaluations)
    evaluations = Evaluations(problem, cell.seed)
    seconds = 0.0
    for _ in range(cell.evaluations):
        began = time.process_time()
        design = method.ask()
        seconds += time.process_time() - began
        observed = evaluations.observe(design)
        began = time.process_time()
        method.tell(design, observed)
        seconds += time.process_time() - began
    return record_of(cell, problem.value(method.recommend()), evaluations, seconds)


def record_of(cell: Cell[M], score: float, evaluations: Evaluations, seconds: float) -> Record:
    """What `cell` came to. `seconds` are those that the method took in all."""
    return Record(
        cell.family,
        cell.method,
        cell.seed,
        cell.evaluations,
        score=score,
        best=max(evaluations.values),
        cpu_seconds=seconds / cell.evaluations,
        values=evaluations.values,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def append(path: Path, record: Record) -> None:
    """See `append_line`."""
    append_line(path, asdict(record))


def read(path: Path) -> list[Record]:
    """All whole records, the first of each cell; none where there is no file."""
    found: dict[tuple[str, str, int], Record] = {}
    for values in whole_lines(path):
        record = Record(**values)
        found.setdefault((record.family, record.method, record.seed), record)
    return list(found.values())


def records_of(plan: Plan) -> Path:
    """Those of the confirmatory run are committed, so that it goes on elsewhere; others are in `$MIXREC_HOME`."""
    from mixrec_automl import paths

    if plan is CONFIRMATORY:
        return Path(__file__).with_suffix(".jsonl")
    return paths.home() / "search-quality" / f"{plan.name}.jsonl"


def run(cells: Iterable[Cell[M]], path: Path, console: Console, search: Callable[[Cell[M]], Record]) -> int:
    """All cells that `path` does not have yet, in this process and one thread. Returns how many of them raised.

    One that raises is told of and has no record, so that the next run tries it again.
    """
    import torch

    torch.set_num_threads(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = list(cells)
    done = {(record.family, record.method, record.seed) for record in read(path)}
    missing = [cell for cell in cells if (cell.family, cell.method, cell.seed) not in done]
    console.print(f"{len(cells) - len(missing)} of {len(cells)} searches are there: {path}")
    failed = 0
    for number, cell in enumerate(missing, start=1):
        torch.manual_seed(cell.seed)
        began = time.monotonic()
        name = f"{number}/{len(missing)} {cell.family} {cell.method} seed {cell.seed}"
        try:
            record = search(cell)
        except Exception as error:
            failed += 1
            console.print(f"{name} FAILED with {type(error).__name__}: {error}", markup=False)
            continue
        append(path, record)
        console.print(
            f"{name}: {record.score:.5g}, {record.cpu_seconds:.3f} CPU-seconds a suggestion, "
            f"{time.monotonic() - began:.1f} s"
        )
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1: a search raised; 2: the user can mend it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, help="of the records; default: that of `records_of`")
    plans = parser.add_mutually_exclusive_group()
    plans.add_argument("--quick", dest="plan", action="store_const", const=QUICK, default=CONFIRMATORY)
    plans.add_argument("--tuning", dest="plan", action="store_const", const=TUNING)
    parser.add_argument("--methods", nargs="+", type=Method, default=list(Method), metavar="METHOD")
    parser.add_argument("--families", nargs="+", type=Family, default=list(Family), metavar="FAMILY")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    path = records_of(given.plan) if given.folder is None else given.folder / f"{given.plan.name}.jsonl"
    chosen = [cell for cell in given.plan.cells() if cell.method in given.methods and cell.family in given.families]
    try:
        if given.command == "run":
            for method in {cell.method: None for cell in chosen}:
                # A library that is missing is told of before hours have gone by.
                start(method, bits=6, seed=0, evaluations=12, is_noisy=False)
            return int(run(chosen, path, console, search) > 0)
        from benchmarks.search_quality_table import write

        write(read(path), given.plan, console)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
