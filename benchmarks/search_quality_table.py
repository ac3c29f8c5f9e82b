"""The table of `search_quality.py`: mean score of each method, and what ours has over each peer on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.problems import Family, Floats
from benchmarks.search_methods import Method
from trainers.errors import UserError
from trainers.statistics import bootstrap_intervals

if TYPE_CHECKING:
    from benchmarks.search_quality import Plan, Record

FEWEST_SEEDS = 5
"""Below that, resampling the seeds says nothing."""


class Verdict(StrEnum):
    BETTER = "ours better"
    WORSE = "ours worse"
    EQUAL = "equal"
    OPEN = "open"
    TOO_FEW = "too few seeds"


@dataclass(frozen=True)
class Comparison:
    """Ours minus a peer on the seeds that both have."""

    peer: Method
    seeds: int
    mean: float
    low: float
    high: float
    """95 % percentile bootstrap over seeds; not a number where there are fewer than two."""

    @property
    def verdict(self) -> Verdict:
        if self.seeds < FEWEST_SEEDS:
            return Verdict.TOO_FEW
        if self.low > 0:
            return Verdict.BETTER
        if self.high < 0:
            return Verdict.WORSE
        return Verdict.EQUAL if self.low == self.high else Verdict.OPEN


def compare(ours: dict[int, float], theirs: dict[int, float], peer: Method) -> Comparison | None:
    """From scores by seed; None where no seed is in both."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences: Floats = np.array([ours[seed] - theirs[seed] for seed in seeds])
    low = high = float("nan")
    if len(seeds) > 1:
        low, high = bootstrap_intervals(differences[:, None], seed=0)[0]
    return Comparison(peer, len(seeds), float(differences.mean()), float(low), float(high))


def write(records: Sequence[Record], plan: Plan, console: Console) -> None:
    """Print every row there is.

    Raises:
        UserError: there is none.
    """
    if not records:
        raise UserError("there are no records yet: give `run` first, with the same --folder and plan")
    in_all = sum(1 for _ in plan.cells())
    versions = sorted({f"{name} {number}" for record in records for name, number in record.versions.items()})
    console.print(f"plan {plan.name}: {len(records)} of {in_all} searches; {', '.join(versions)}")
    budgets = ", ".join(f"{family} {evaluations}" for family, evaluations in plan.evaluations.items())
    console.print(f"evaluations: {budgets}")
    table = Table(
        title="true value of the recommended design (higher is better), its standard error; CPU-seconds a suggestion",
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("family", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("seeds", "mean ± error", "CPU-s", "ours - it", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    hardest: list[tuple[Family, Comparison]] = []
    for family in plan.evaluations:
        found = [record for record in records if record.family == family]
        scores = {
            method: {record.seed: record.score for record in found if record.method == method} for method in Method
        }
        comparisons = []
        for place, method in enumerate(method for method in Method if scores[method]):
            values = np.array(list(scores[method].values()))
            error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            seconds = np.mean([record.cpu_seconds for record in found if record.method == method])
            difference = None if method is Method.OURS else compare(scores[Method.OURS], scores[method], method)
            told = ("", "", "")
            if difference is not None:
                comparisons.append(difference)
                interval = f"{difference.low:+.3g} to {difference.high:+.3g}" if difference.seeds > 1 else ""
                told = (f"{difference.mean:+.3g}", interval, str(difference.verdict))
            head = str(family) if place == 0 else ""
            mean = f"{values.mean():.4g} ± {error:.2g}"
            table.add_row(head, str(method), str(len(values)), mean, f"{seconds:.3f}", *told)
        table.add_section()
        if comparisons:
            hardest.append((family, min(comparisons, key=lambda one: one.mean)))
    console.print(table)
    console.print("Against the best peer of each family, by the mean over the seeds that it shares with ours:")
    for family, comparison in hardest:
        console.print(f"  {family}: {comparison.peer}, {comparison.mean:+.3g}, {comparison.verdict}")
