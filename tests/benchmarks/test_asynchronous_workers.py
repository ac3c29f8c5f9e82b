"""The comparison of workers side by side: its simulated time, and its table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import asynchronous_workers, search_quality
from benchmarks.asynchronous_workers import FAMILIES, SEEDS, Way, cells, kept, main, simulate, write
from benchmarks.problems import Bits, Family, Purpose, draws
from benchmarks.search_methods import Method, Ours
from benchmarks.search_quality import CONFIRMATORY, TUNING, Cell, Record

SMALL = Cell(Family.DAMOE, Way.EIGHT, seed=3, evaluations=12)


def test_one_worker_is_the_sequential_search() -> None:
    sequential = search_quality.search(Cell(SMALL.family, Method.OURS, SMALL.seed, SMALL.evaluations))
    simulated = simulate(replace(SMALL, method=Way.ONE), workers=1)
    assert replace(simulated, cpu_seconds=0, method="") == replace(sequential, cpu_seconds=0, method="")


class Watched(Ours):
    """Keeps what is asked and told, in order."""

    log: list[tuple[str, Bits]]

    def ask_beside(self) -> Bits | None:
        design = super().ask_beside()
        if design is not None:
            self.log.append(("ask", design))
        return design

    def tell(self, design: Bits, observed: float) -> None:
        self.log.append(("tell", design))
        super().tell(design, observed)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Bits]]:
    found: list[tuple[str, Bits]] = []
    monkeypatch.setattr(Watched, "log", found, raising=False)
    monkeypatch.setattr(asynchronous_workers, "Ours", Watched)
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_are_busy_and_one_design_waits_where_there_are_several(
    log: list[tuple[str, Bits]], workers: int
) -> None:
    record = simulate(SMALL, workers)
    open_ones = np.cumsum([1 if what == "ask" else -1 for what, _ in log])
    assert max(open_ones) == (workers + 1 if workers > 1 else 1)
    searched = [what for what, _ in log][: 2 * 8]  # 4 of 12 are kept for the confirmation, which waits for all others
    assert searched[: max(open_ones)] == ["ask"] * max(open_ones)
    assert open_ones[-1] == 0
    assert len(record.values) == 12


def test_what_takes_longer_is_told_later(log: list[tuple[str, Bits]]) -> None:
    """As many workers as evaluations: nothing waits for anything, so that the order is that of the durations."""
    cell = Cell(Family.ISING, Way.EIGHT, seed=3, evaluations=9)
    simulate(cell, workers=9)
    durations = draws(Purpose.DURATION, cell.seed).lognormal(0, asynchronous_workers.SPREAD, size=9)
    asked = [design for what, design in log if what == "ask"]
    assert [design for what, design in log if what == "tell"] == [asked[place] for place in np.argsort(durations)]


def test_designs_that_are_open_together_differ(log: list[tuple[str, Bits]]) -> None:
    simulate(Cell(Family.ISING, Way.EIGHT, seed=1, evaluations=14), workers=4)
    asked = [design for what, design in log if what == "ask"]
    assert len(set(asked)) == len(asked) == 14


@pytest.mark.parametrize(
    ("eight", "verdict"),
    [(lambda one: one, "kept"), (lambda one: 0.95 * one, "kept"), (lambda one: 0.5 * one, "lost")],
)
def test_the_share_is_that_of_the_advantage(eight: Callable[[np.ndarray], np.ndarray], verdict: str) -> None:
    one = np.random.default_rng(0).uniform(0.5, 1.5, size=12)
    random = np.full(12, 3.0)
    found = kept(random, random + one, random + eight(one))
    assert found.sequential == pytest.approx(one.mean())
    assert found.share == pytest.approx(eight(one).mean() / one.mean())
    assert found.share_interval == pytest.approx((found.share, found.share), abs=1e-9), "the same for every seed"
    assert found.verdict == verdict


def test_noise_leaves_the_verdict_open_and_no_advantage_has_no_share() -> None:
    draw = np.random.default_rng(1)
    one, eight = 1 + draw.normal(size=12), 1 + draw.normal(size=12)
    found = kept(np.zeros(12), one, eight)
    assert found.share_interval[0] < found.share < found.share_interval[1]
    assert found.verdict == "open"
    nothing = kept(np.zeros(12), draw.normal(size=12), eight)
    assert np.isnan(nothing.share_interval).all()
    assert nothing.verdict == "open"
    assert kept(np.zeros(4), np.ones(4), np.ones(4)).verdict == "too few seeds"


def test_the_plan_has_seeds_of_its_own() -> None:
    planned = list(cells())
    assert len(planned) == len(set(planned)) == len(FAMILIES) * len(Way) * len(SEEDS)
    assert len(SEEDS) >= 8
    for other in (CONFIRMATORY, TUNING):
        assert {cell.seed for cell in planned}.isdisjoint(cell.seed for cell in other.cells())


def test_the_table_takes_seeds_that_all_ways_have() -> None:
    def record(way: Way, seed: int, score: float) -> Record:
        best = 9.0 if way is Way.RANDOM else 10.0
        return Record(Family.LAYERS, way, seed, 50, score, best, 0.25, [score], {})

    records = [record(way, seed, place + 0.1 * seed) for seed in range(5) for place, way in enumerate(Way)]
    console = Console(record=True, width=160, file=io.StringIO())
    write([*records, record(Way.ONE, 9, 1e9)], console)
    [row] = [line for line in console.export_text().splitlines() if Family.LAYERS in line]
    assert "5 of 12" in row
    of_recommended, of_best_tried = row.split(" kept ")
    assert "200% (200% to 200%)" in of_recommended
    assert of_best_tried.strip() == "100% (100% to 100%)"


def test_a_table_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "--folder", str(tmp_path)]) == 2
    assert "not enough records" in capsys.readouterr().err
