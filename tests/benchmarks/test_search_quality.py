"""The comparison of searches: what it asks of methods, that it goes on where it was interrupted, and its table."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import search_quality
from benchmarks.mixed_methods import start_mixed
from benchmarks.mixed_problem import random_levels
from benchmarks.problems import Family, instance
from benchmarks.search_methods import Method, start
from benchmarks.search_quality import CONFIRMATORY, QUICK, TUNING, Cell, Record, append, main, read, search
from benchmarks.search_quality_table import Verdict, compare, write
from trainers.errors import UserError

OPTUNA = importlib.util.find_spec("optuna") is not None
METHODS = [
    pytest.param(method, marks=pytest.mark.skipif(not OPTUNA, reason="needs optuna: pip install -e '.[bench]'"))
    if method in (Method.TPE, Method.OPTUNA_GP)
    else method
    for method in Method
]


@pytest.mark.parametrize("method", METHODS)
def test_methods_ask_are_told_and_recommend_what_was_tried(method: Method) -> None:
    """Of designs of its own and of others. Without noise the best is recommended, but for Ax, which asks its model."""
    told: dict[tuple[int, ...], float] = {}
    search = start(method, bits=8, seed=1, evaluations=20, is_noisy=False)
    for given in ((0, 1) * 4, (1, 0) * 4):
        told[given] = float(sum(given[:3]))
        search.tell(given, told[given])
    for _ in range(12 if method is Method.EVOLUTION else 5):
        design = search.ask()
        assert len(design) == 8
        assert set(design) <= {0, 1}
        told[design] = float(sum(design[:3]))
        search.tell(design, told[design])
    assert search.recommend() in told
    if method is not Method.AX:
        assert told[search.recommend()] == max(told.values())


@pytest.mark.parametrize("method", METHODS)
def test_methods_search_a_mixed_space_as_well(method: Method) -> None:
    """Designs of others are told as the method's own are; what is recommended was tried."""
    problem, told = instance(Family.MIXED, seed=3), dict[tuple[float, ...], float]()
    search = start_mixed(method, seed=3, evaluations=20)
    for levels in random_levels(np.random.default_rng(0), 3):
        search.tell(levels, problem.value(levels))
        told[levels] = problem.value(levels)
    for _ in range(12 if method is Method.EVOLUTION else 4):
        levels = search.ask()
        assert problem.space is not None
        assert np.allclose(problem.space.levels(problem.space.setting(levels)), levels)
        told[levels] = problem.value(levels)
        search.tell(levels, told[levels])
    recommended = search.recommend()
    nearest = min(told, key=lambda one: float(np.abs(np.subtract(one, recommended)).max()))
    assert np.allclose(nearest, recommended, atol=1e-9)
    if method is not Method.AX:
        assert told[nearest] == max(told.values())


def test_evolution_changes_few_bits_of_a_good_design() -> None:
    search = start(Method.EVOLUTION, bits=40, seed=0, evaluations=50, is_noisy=False)
    for number in range(10):
        search.tell(tuple(map(int, np.random.default_rng(number).integers(2, size=40))), float(number))
    best = [tuple(map(int, np.random.default_rng(number).integers(2, size=40))) for number in range(5, 10)]
    for _ in range(20):
        child = search.ask()
        assert 1 <= min(sum(a != b for a, b in zip(child, parent, strict=True)) for parent in best) <= 6


def test_evolution_ends_where_nearly_all_has_been_tried() -> None:
    search = start(Method.EVOLUTION, bits=5, seed=0, evaluations=50, is_noisy=False)
    tried = set()
    for _ in range(32):
        tried.add(design := search.ask())
        search.tell(design, float(sum(design)))
    assert len(tried) == 32


@pytest.mark.skipif(OPTUNA, reason="optuna is here")
def test_a_missing_library_is_one_line_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--quick", "--folder", str(tmp_path), "--methods", Method.TPE]) == 2
    assert capsys.readouterr().err == "Optuna TPE needs a package that is not here: pip install -e '.[bench]'\n"


def test_a_library_that_cannot_be_imported_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[bench\]'"):
        start(Method.OPTUNA_GP, bits=4, seed=0, evaluations=50, is_noisy=False)


def test_the_plan_holds_what_was_promised() -> None:
    cells = list(CONFIRMATORY.cells())
    for family in Family:
        for method in Method:
            seeds = {cell.seed for cell in cells if (cell.family, cell.method) == (family, method)}
            assert len(seeds) >= (8 if method is Method.AX else 20)
    assert len(set(cells)) == len(cells)
    confirmatory = {cell.seed for cell in cells}
    for other in (TUNING, QUICK):
        assert confirmatory.isdisjoint(cell.seed for cell in other.cells())


def test_a_search_is_the_same_again() -> None:
    cell = Cell(Family.LAYERS, Method.EVOLUTION, seed=0, evaluations=15)
    first, second = search(cell), search(cell)
    assert replace(first, cpu_seconds=0) == replace(second, cpu_seconds=0)
    assert first.score <= first.best == max(first.values)
    assert len(first.values) == 15


def test_the_nth_observation_of_a_design_is_the_same_for_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    designs = [(0, 1) * 18, (1, 0) * 18, (0, 1) * 18]

    class Scripted:
        def __init__(self, order: list[tuple[int, ...]]) -> None:
            self.order, self.told = list(order), list[tuple[tuple[int, ...], float]]()

        def ask(self) -> tuple[int, ...]:
            return self.order[len(self.told)]

        def tell(self, design: tuple[int, ...], observed: float) -> None:
            self.told.append((design, observed))

        def recommend(self) -> tuple[int, ...]:
            return self.order[0]

    scripts = [Scripted(designs), Scripted(designs[::-1])]
    for script in scripts:
        monkeypatch.setattr(search_quality, "start", lambda *_, script=script, **__: script)
        search(Cell(Family.LAYERS, Method.RANDOM, seed=3, evaluations=3))
    first, second = (script.told for script in scripts)
    assert sorted(first) == sorted(second)
    assert first[0][1] != first[2][1], "a design that is tried again is trained again"


def test_a_search_that_raises_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(cell: Cell) -> Record:
        if cell.method is Method.RANDOM:
            raise RuntimeError("no fit")
        return search(cell)

    monkeypatch.setattr(search_quality, "search", raises)
    assert main(["run", *arguments(tmp_path)]) == 1
    assert {record.method for record in read(tmp_path / "quick.jsonl")} == {Method.EVOLUTION}
    assert "RuntimeError: no fit" in capsys.readouterr().out


def arguments(folder: Path) -> list[str]:
    return ["--quick", "--folder", str(folder), "--methods", "random", "evolution"]


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["run", *arguments(whole)]) == 0
    done = read(whole / "quick.jsonl")
    assert len(done) == 2 * len(QUICK.evaluations) * len(QUICK.seeds)

    broken.mkdir()
    lines = (whole / "quick.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "quick.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed within the fourth line
    ran: list[Cell] = []

    def watched(cell: Cell) -> Record:
        ran.append(cell)
        return search(cell)

    monkeypatch.setattr(search_quality, "search", watched)
    assert main(["run", *arguments(broken)]) == 0
    assert len(ran) == len(done) - 3

    def scores(records: list[Record]) -> dict[tuple[str, str, int], float]:
        return {(record.family, record.method, record.seed): record.score for record in records}

    assert scores(read(broken / "quick.jsonl")) == scores(done)
    ran.clear()
    assert main(["run", *arguments(broken)]) == 0
    assert ran == []


def test_a_cell_counts_once(tmp_path: Path) -> None:
    record = Record("labs-30", "ours", 1000, 50, 1.0, 2.0, 0.1, [1.0, 2.0], {"torch": "2"})
    for score in (1.0, 5.0):
        append(tmp_path / "some.jsonl", replace(record, score=score))
    assert read(tmp_path / "some.jsonl") == [record]
    assert json.loads((tmp_path / "some.jsonl").read_text().splitlines()[1])["score"] == 5.0


def test_the_table_has_every_row_and_names_losses() -> None:
    def record(method: Method, seed: int, score: float) -> Record:
        return Record(Family.LAYERS, method, seed, 8, score, score, 0.25, [score], {"optuna": "4.9.0"})

    noise = np.random.default_rng(0).normal(size=20)
    records = []
    for seed in range(20):
        records.append(record(Method.OURS, seed, 5 + noise[seed]))
        records.append(record(Method.RANDOM, seed, 4 + noise[seed] + 0.1 * noise[seed - 1]))
        records.append(record(Method.TPE, seed, 6 + noise[seed] + 0.1 * noise[seed - 1]))
        records.append(record(Method.OPTUNA_GP, seed, 5 + noise[seed - 1]))
    records += [record(Method.AX, seed, 4.0) for seed in range(3)]
    console = Console(record=True, width=120, file=io.StringIO())
    write(records, QUICK, console)
    lines = console.export_text().splitlines()
    for method, verdict in (
        (Method.RANDOM, Verdict.BETTER),
        (Method.TPE, Verdict.WORSE),
        (Method.OPTUNA_GP, Verdict.OPEN),
        (Method.AX, Verdict.TOO_FEW),
    ):
        [row] = [line for line in lines if f" {method} " in line and " to " in line]
        assert row.rstrip().endswith(verdict)
    assert any("layers-36: Optuna TPE" in line and line.endswith("ours worse") for line in lines)


def test_comparisons_are_of_shared_seeds() -> None:
    found = compare({1: 1.0, 2: 2.0, 9: 100.0}, {1: 0.0, 2: 2.0, 3: -50.0}, Method.RANDOM)
    assert found is not None
    assert (found.seeds, found.mean) == (2, 0.5)
    assert compare({1: 1.0}, {2: 1.0}, Method.RANDOM) is None
    same = dict.fromkeys(range(6), 1.0)
    equal = compare(same, same, Method.RANDOM)
    assert equal is not None
    assert equal.verdict is Verdict.EQUAL


def test_a_table_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "--folder", str(tmp_path)]) == 2
    assert "no records yet" in capsys.readouterr().err
