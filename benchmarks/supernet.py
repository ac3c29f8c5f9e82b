"""Does a supernet rank designs as their own trainings do? On all 64 designs of DAMoE-Bench.

    python benchmarks/supernet.py run --seeds 2 --epochs 2 8    # resumable; a file for each (seed, epochs)
    python benchmarks/supernet.py table

Supernets are trained in the setting of `damoe_bench.py` but with other seeds, so that they share neither initial
weights nor batches with the trainings that they are compared with. `run` also trains the all-serial design once more:
what it costs here, and whether the committed table is still what comes out.

Legend: D designs, S training seeds, U users, K scored proxies.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.damoe_bench import DESIGNS, TABLE, training
from benchmarks.damoe_bench_analysis import Bench, Values, bootstrap_over_users

Places = NDArray[np.int64]
FIRST_SEED = 101
STANDALONE_SEED = 1
"""Of the table; the design is the all-serial one"""
GATES = (8, 12, 16, 24)
"""Standalone trials that a gate may ask for"""
GATE_LEVEL, GATE_DRAWS = 0.05, 2000


def results() -> Path:
    from mixrec_automl import paths

    return paths.home() / "supernet"


def write(target: Path, **arrays: NDArray[np.float64]) -> None:
    scratch = target.with_suffix(f".{os.getpid()}.tmp")
    with scratch.open("wb") as file:
        np.savez_compressed(file, **arrays)
    scratch.replace(target)


def run_supernet(seed: int, epochs: int, console: Console) -> None:
    """Train one and score all designs: reciprocal ranks [designs, users] and seconds of a core."""
    from search_spaces.architecture import Architecture
    from trainers.supernet import train_supernet

    target = results() / f"seed-{seed}-epochs-{epochs}.npz"
    if target.exists():
        return
    config = training().config.finetune
    config = replace(config, training=replace(config.training, epochs=epochs))
    folder = target.with_suffix("")
    clock = folder / "seconds.npz"
    spent = float(np.load(clock)["training"]) if clock.exists() else 0.0
    began = time.process_time()

    def tell(report) -> bool:  # type: ignore[no-untyped-def]
        write(clock, training=np.array(spent + time.process_time() - began))
        console.print(f"seed {seed}, epoch {report.epoch} of {epochs}: MRR {report.validation.mrr:.4f} all-serial")
        return True

    supernet = train_supernet(config, training().load(), seed=seed, folder=folder, on_epoch=tell)
    began = time.process_time()
    ranks = supernet.reciprocal_ranks([Architecture.parse(bits) for bits in DESIGNS], progress=console.print)
    scoring = np.array(time.process_time() - began)
    write(target, reciprocal_ranks=ranks, training=np.load(clock)["training"], scoring=scoring)
    console.print(f"seed {seed}, {epochs} epochs: MRR of the designs {ranks.mean():.4f}, {scoring:.0f} s to score them")


def run_standalone(console: Console) -> None:
    """One training of the table, again."""
    import tempfile

    from search_spaces.architecture import Architecture
    from trainers.finetune import finetune
    from trainers.metrics import per_user

    target = results() / "standalone.npz"
    if target.exists():
        return
    epochs: list[NDArray[np.float64]] = []
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        finetune(
            training().config.finetune,
            Architecture.parse(DESIGNS[0]),
            training().load(),
            seed=STANDALONE_SEED,
            folder=Path(folder),
            on_epoch=lambda _: True,
            on_validation=lambda ranks: epochs.append(per_user(ranks)["mrr"]),
        )
    write(target, reciprocal_ranks=epochs[-1], training=np.array(time.process_time() - began))
    console.print(f"all-serial, seed {STANDALONE_SEED}: MRR {epochs[-1].mean():.4f}")


def run(seeds: int, epochs: list[int], console: Console) -> None:
    import torch

    torch.set_num_threads(1)
    results().mkdir(parents=True, exist_ok=True)
    training().load()  # no part of a training
    for length in epochs:
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            run_supernet(seed, length, console)
        run_standalone(console)


@dataclass(frozen=True)
class Proxy:
    """What is compared with the trainings of a seed."""

    name: str
    scores: Values
    """[K, D, U]; for a peer trained with the table's seeds K is S"""
    same_seeds: bool = False
    """`scores` are by the table's seeds, and each is compared with the others alone"""
    cost: float = 0.0
    """Seconds of a core for all designs"""

    def pairs(self, seeds: int) -> list[tuple[int, int]]:
        """(proxy, seed) that are compared."""
        return [(k, s) for k in range(len(self.scores)) for s in range(seeds) if not (self.same_seeds and k == s)]


def spearman(left: Values, right: Values) -> Values:
    """[...] rank correlation along the last axis."""
    left, right = (stats.rankdata(values, axis=-1) for values in (left, right))
    left, right = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (left, right))
    return np.asarray((left * right).sum(axis=-1) / np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1)))


def passing(proxy: Values, alone: Values, trials: int, rng: np.random.Generator) -> float:
    """How often the rank correlation over so many random designs, each trained once, is above zero at `GATE_LEVEL`
    (one-sided, by Student's t). By chance alone it is at that rate.

    Args: [D] scores of the proxy, [D] of a training seed.
    """
    drawn = np.argsort(rng.random((GATE_DRAWS, len(proxy))), axis=1)[:, :trials]
    rho = spearman(proxy[drawn], alone[drawn])
    least = stats.t.ppf(1 - GATE_LEVEL, trials - 2)
    return float((rho > least / np.sqrt(trials - 2 + least**2)).mean())


def read_proxies(bench: Bench) -> list[Proxy]:
    """Supernets by their epochs, then the peers."""
    one_training = float(np.load(results() / "standalone.npz")["training"])
    found: dict[int, list[dict[str, Values]]] = {}
    for path in sorted(results().glob("seed-*.npz")):
        found.setdefault(int(path.stem.split("-")[-1]), []).append(dict(np.load(path)))
    proxies = []
    for epochs, ones in sorted(found.items()):
        cost = float(np.mean([one["training"] + one["scoring"] for one in ones]))
        scores = np.stack([one["reciprocal_ranks"] for one in ones])
        proxies.append(Proxy(f"supernet, {epochs} epochs, {len(ones)} seeds", scores, cost=cost))
    first, last = (bench.values[epoch].transpose(1, 0, 2) for epoch in (0, -1))
    all_trainings = len(bench.designs) * one_training
    bits = np.array([sum(map(int, design)) for design in bench.designs], dtype=np.float64)
    return [
        *proxies,
        Proxy("first epoch of another seed", first, same_seeds=True, cost=all_trainings / len(bench.values)),
        Proxy("another seed, whole training", last, same_seeds=True, cost=all_trainings),
        Proxy("number of parallel adapters", bits[None, :, None].repeat(last.shape[-1], axis=2)),
    ]


def print_table(console: Console) -> None:
    bench = Bench.read(TABLE)
    alone = bench.values[-1].transpose(1, 0, 2)  # [S, D, U]
    again = np.load(results() / "standalone.npz")
    told = alone[bench.seeds.index(STANDALONE_SEED), 0]
    console.print(
        f"all-serial, seed {STANDALONE_SEED}: MRR {again['reciprocal_ranks'].mean():.4f} today in "
        f"{float(again['training']):.0f} s of a core, {told.mean():.4f} in the table"
    )
    agreements = Table(
        "proxy",
        "Spearman",
        "95 % over users",
        "Kendall",
        "with the mean",
        "own seeds",
        "cost",
        title="rank correlation",
    )
    gates = Table("proxy", *(f"{trials} trials" for trials in GATES), title="how often a gate would pass")
    for proxy in read_proxies(bench):
        of_proxy, of_seed = np.array(proxy.pairs(len(alone))).T
        both = np.concatenate([proxy.scores, alone])

        def mean_rho(
            drawn: Values, first: int = len(proxy.scores), k: Places = of_proxy, s: Places = of_seed
        ) -> Values:
            mrr = drawn.mean(axis=2)
            return spearman(mrr[:first][k], mrr[first:][s]).mean(keepdims=True)

        (rho,), ((low,), (high,)) = mean_rho(both), bootstrap_over_users(both, mean_rho)
        scores, mrr = proxy.scores.mean(axis=2), alone.mean(axis=2)
        pairs = list(zip(of_proxy, of_seed, strict=True))
        tau = np.mean([stats.kendalltau(scores[k], mrr[s]).statistic for k, s in pairs])
        mean = "" if proxy.same_seeds else f"{spearman(scores, mrr.mean(axis=0)[None]).mean():.2f}"
        own = [spearman(scores[one], scores[two]) for one, two in combinations(range(len(scores)), 2)]
        agreements.add_row(
            proxy.name,
            f"{rho:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{tau:.2f}",
            mean,
            f"{np.mean(own):.2f}" if own else "",
            f"{proxy.cost / float(again['training']):.1f}",
        )
        rng = np.random.default_rng(0)
        rates = [np.mean([passing(scores[k], mrr[s], trials, rng) for k, s in pairs]) for trials in GATES]
        gates.add_row(proxy.name, *(f"{rate:.0%}" for rate in rates))
    console.print(agreements)
    console.print(
        f"Spearman and Kendall: with one training seed, {len(alone)} in turn; with the mean of them; between the seeds "
        "of the proxy; cost of all designs in trainings of one"
    )
    console.print(gates)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--seeds", type=int, default=2)
    runs.add_argument("--epochs", type=int, nargs="+", default=[2, 8])
    commands.add_parser("table")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.seeds, arguments.epochs, Console())
    else:
        print_table(Console())
