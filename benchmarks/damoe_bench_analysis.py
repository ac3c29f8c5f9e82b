"""What DAMoE-Bench says: variance split, how early the end is known, and the effect of each bit, with intervals.

Legend: D designs, S training seeds, U users; y [D, S, U] reciprocal ranks after the last epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

Values = NDArray[np.float64]
RESAMPLES, LEVEL = 1000, 0.95
SITES = ("causal expert", "context expert", "recommendation adapter")


@dataclass(frozen=True)
class Bench:
    """The table as one array."""

    designs: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Values
    """[E, D, S, U] reciprocal ranks after each epoch"""

    @classmethod
    def read(cls, path: Path) -> Bench:
        """Only seeds of which all designs are there, so that every comparison is paired."""
        rows = pq.read_table(path).to_pylist()
        designs, epochs = sorted({row["design"] for row in rows}), sorted({row["epoch"] for row in rows})
        found = {(row["epoch"], row["design"], row["seed"]): row["reciprocal_ranks"] for row in rows}
        seeds = [
            seed
            for seed in sorted({row["seed"] for row in rows})
            if all((epoch, design, seed) in found for epoch in epochs for design in designs)
        ]
        values = [[[found[epoch, design, seed] for seed in seeds] for design in designs] for epoch in epochs]
        return cls(tuple(designs), tuple(seeds), np.array(values, dtype=np.float64))


def variance_shares(y: Values) -> dict[str, float]:
    """Shares of the variance of one reciprocal rank, from the mean squares of a design x seed x user layout without
    replication (method of moments; what comes out negative is zero).

    The last term, of all three together, cannot be told from noise.
    """
    d, s, u = y.shape
    grand = y.mean()
    by = {
        "design": y.mean(axis=(1, 2)) - grand,
        "seed": y.mean(axis=(0, 2)) - grand,
        "user": y.mean(axis=(0, 1)) - grand,
    }
    two = {
        "design x seed": y.mean(axis=2) - grand - by["design"][:, None] - by["seed"][None, :],
        "design x user": y.mean(axis=1) - grand - by["design"][:, None] - by["user"][None, :],
        "seed x user": y.mean(axis=0) - grand - by["seed"][:, None] - by["user"][None, :],
    }
    fitted = (
        grand
        + by["design"][:, None, None]
        + by["seed"][None, :, None]
        + by["user"][None, None, :]
        + two["design x seed"][:, :, None]
        + two["design x user"][:, None, :]
        + two["seed x user"][None, :, :]
    )
    freedom = (d - 1) * (s - 1) * (u - 1)
    residual = float(((y - fitted) ** 2).sum() / freedom) if freedom else 0.0
    squares = {
        "design x seed": (two["design x seed"] ** 2).sum() * u / max((d - 1) * (s - 1), 1),
        "design x user": (two["design x user"] ** 2).sum() * s / ((d - 1) * (u - 1)),
        "seed x user": (two["seed x user"] ** 2).sum() * d / max((s - 1) * (u - 1), 1),
        "design": (by["design"] ** 2).sum() * s * u / (d - 1),
        "seed": (by["seed"] ** 2).sum() * d * u / max(s - 1, 1),
        "user": (by["user"] ** 2).sum() * d * s / (u - 1),
    }
    parts = {
        "design x seed": (squares["design x seed"] - residual) / u,
        "design x user": (squares["design x user"] - residual) / s,
        "seed x user": (squares["seed x user"] - residual) / d,
        "design": (squares["design"] - squares["design x seed"] - squares["design x user"] + residual) / (s * u),
        "seed": (squares["seed"] - squares["design x seed"] - squares["seed x user"] + residual) / (d * u),
        "user": (squares["user"] - squares["design x user"] - squares["seed x user"] + residual) / (d * s),
        "rest": residual,
    }
    positive = {name: max(float(value), 0.0) for name, value in parts.items()}
    total = sum(positive.values())
    return {name: value / total for name, value in positive.items()}


def bootstrap_over_users(y: Values, of: Callable[[Values], Values], seed: int = 0) -> tuple[Values, Values]:
    """95 % percentile interval of `of(y)` where the users are drawn anew."""
    rng = np.random.default_rng(seed)
    users = y.shape[-1]
    drawn = np.stack([of(y[..., rng.integers(users, size=users)]) for _ in range(RESAMPLES)])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def bit_effects(designs: tuple[str, ...], mrr: Values) -> Values:
    """[bits] mean MRR with the bit parallel less that with it serial, over all designs and seeds (a full factorial, so
    effects do not mix). `mrr` is [D, S]."""
    bits = np.array([[int(bit) for bit in design] for design in designs])
    return np.array([mrr[column == 1].mean() - mrr[column == 0].mean() for column in bits.T])


def analyse(path: Path, console: Console) -> None:
    """Print all tables."""
    bench = Bench.read(path)
    y = bench.values[-1]
    epochs, designs, seeds, users = bench.values.shape
    mrr = y.mean(axis=2)
    console.print(f"{designs} designs, {seeds} training seeds, {users} users, {epochs} epochs; seeds {bench.seeds}")
    best, worst = mrr.mean(axis=1).argmax(), mrr.mean(axis=1).argmin()
    told = {bench.designs[place]: f"{mrr[place].mean():.4f}" for place in range(designs)}
    console.print(
        f"MRR {mrr.mean():.4f}; best design {bench.designs[best]} {told[bench.designs[best]]}, worst "
        f"{bench.designs[worst]} {told[bench.designs[worst]]}, all-serial {told['0' * 6]}; "
        f"deviation between designs {mrr.mean(axis=1).std(ddof=1):.4f}"
    )
    if seeds > 1:
        spread = np.sqrt(mrr.var(axis=1, ddof=1).mean())
        console.print(f"deviation of a design's MRR between training seeds {spread:.4f}")
        rho = [stats.spearmanr(mrr[:, a], mrr[:, b]).statistic for a in range(seeds) for b in range(a)]
        console.print(f"rank correlation of the designs between two seeds: {np.mean(rho):.2f}")
        names = list(variance_shares(y))
        low, high = bootstrap_over_users(y, lambda drawn: np.array([*variance_shares(drawn).values()]))
        table = Table("part", "share of the variance", "95 % over users", title="variance of one reciprocal rank")
        for name, share, below, above in zip(names, variance_shares(y).values(), low, high, strict=True):
            table.add_row(name, f"{share:.2%}", f"{below:.2%} to {above:.2%}")
        console.print(table)
    table = Table("epoch", "rank correlation with the end", "95 % over users", title="how early the end is known")
    for epoch in range(epochs - 1):
        both = bench.values[[epoch, -1]]

        def rho_of(drawn: Values) -> Values:
            early, late = drawn.mean(axis=(2, 3))
            return np.array([stats.spearmanr(early, late).statistic])

        (low,), (high,) = bootstrap_over_users(both, rho_of)
        table.add_row(str(epoch + 1), f"{rho_of(both)[0]:.2f}", f"{low:.2f} to {high:.2f}")
    console.print(table)
    per_design = y.mean(axis=1)
    correlations = np.corrcoef(per_design)[np.triu_indices(designs, 1)]
    console.print(
        f"correlation of per-user scores of two designs: {correlations.mean():.3f}, lowest {correlations.min():.3f}"
    )
    effects = bit_effects(bench.designs, mrr)
    low, high = bootstrap_over_users(y, lambda drawn: bit_effects(bench.designs, drawn.mean(axis=2)))
    table = Table(
        "layer", "bit", "MRR parallel minus serial", "95 % over users", "each seed", title="effect of each bit"
    )
    of_seeds = [bit_effects(bench.designs, mrr[:, [seed]]) for seed in range(seeds)]
    for place, effect in enumerate(effects):
        layer, site = divmod(place, len(SITES))
        each = ", ".join(f"{one[place]:+.4f}" for one in of_seeds)
        table.add_row(str(layer + 1), SITES[site], f"{effect:+.4f}", f"{low[place]:+.4f} to {high[place]:+.4f}", each)
    console.print(table)
