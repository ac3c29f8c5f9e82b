"""The analysis of DAMoE-Bench on made-up values of which everything is known."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks.damoe_bench_analysis import Bench, analyse, bit_effects, bootstrap_over_users, variance_shares

DESIGNS = tuple("".join(map(str, bits)) for bits in itertools.product((0, 1), repeat=6))
EFFECTS = np.array([0.03, -0.02, 0.0, 0.01, 0.0, -0.04])


def made_up(designs: int, seeds: int, users: int, deviations: dict[str, float], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)

    def draw(name: str, *shape: int) -> np.ndarray:
        return rng.normal(scale=deviations.get(name, 0.0), size=shape)

    return (
        0.5
        + draw("design", designs, 1, 1)
        + draw("seed", 1, seeds, 1)
        + draw("user", 1, 1, users)
        + draw("design x seed", designs, seeds, 1)
        + draw("design x user", designs, 1, users)
        + draw("seed x user", 1, seeds, users)
        + draw("rest", designs, seeds, users)
    )


def test_shares_are_those_that_were_drawn() -> None:
    deviations = {"design": 0.2, "seed": 0.1, "user": 0.5, "design x user": 0.3, "seed x user": 0.15, "rest": 0.4}
    found = variance_shares(made_up(64, 40, 300, deviations))
    total = sum(value**2 for value in deviations.values())
    for name, share in found.items():
        assert share == pytest.approx(deviations.get(name, 0.0) ** 2 / total, abs=0.04), name
    assert sum(found.values()) == pytest.approx(1)


def test_effects_of_a_full_factorial_do_not_mix() -> None:
    bits = np.array([[int(bit) for bit in design] for design in DESIGNS])
    mrr = (0.1 + bits @ EFFECTS)[:, None].repeat(3, axis=1)
    assert bit_effects(DESIGNS, mrr) == pytest.approx(EFFECTS)


def test_intervals_over_users_cover_the_mean_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.damoe_bench_analysis.RESAMPLES", 200)
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_over_users(rng.exponential(size=(1, 80)), lambda drawn: drawn.mean(axis=1), seed=trial)
        covered += bool(low[0] <= 1 <= high[0])
    assert 0.88 <= covered / 200 <= 0.98


def test_a_seed_that_has_not_run_whole_is_left_out_and_all_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.damoe_bench_analysis.RESAMPLES", 20)
    values = made_up(64, 3, 30, {"design": 0.1, "user": 0.2, "rest": 0.1})
    rows = [
        {"design": design, "seed": seed, "epoch": epoch, "mrr": 0.0, "reciprocal_ranks": values[place, seed].tolist()}
        for seed in range(3)
        for place, design in enumerate(DESIGNS)
        for epoch in (1, 2)
        if (seed, design) != (2, "000111")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bench.parquet")
    bench = Bench.read(tmp_path / "bench.parquet")
    assert (bench.designs, bench.seeds, bench.values.shape) == (DESIGNS, (0, 1), (2, 64, 2, 30))
    assert bench.values[1] == pytest.approx(values[:, :2])
    console = Console(record=True, width=160, file=io.StringIO())
    analyse(tmp_path / "bench.parquet", console)
    printed = console.export_text()
    for told in ("64 designs, 2 training seeds, 30 users", "design x user", "recommendation adapter", "1.00 to 1.00"):
        assert told in printed
