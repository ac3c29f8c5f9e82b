"""DAMoE-Bench: all 64 designs of two layers on scientific-small, trained with several seeds and kept user by user.

    python benchmarks/damoe_bench.py run --seeds 2      # seed by seed, each (design, seed) resumable and atomic
    python benchmarks/damoe_bench.py table              # joins what has run into benchmarks/damoe_bench.parquet
    python benchmarks/damoe_bench.py analyse            # what the table says: `docs/results.md` quotes it

What a design is worth is a difference between two noisy numbers. The table tells how noisy: how much of the variance is
the design's, the training seed's and the users', whether an early epoch foretells the end, and what each bit does.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

TABLE = Path(__file__).with_name("damoe_bench.parquet")
SETTINGS = (
    "data.sentence_tokens=16",
    "backbone.layers=2",
    "model.projection_dropout=0",
    "training.epochs=2",
    "training.learning_rate=1e-3",
    "training.collaborative_learning_rate=1e-3",
    "training.batch_size=4",
    "training.lambda_contrastive=0",
    "training.align_share=0.1",
    "search.user_share=0.15",
)
"""A design trains in half a minute of one core, and over-fits from the second epoch on. The preset's own choices were
made later, in part because of this table."""
DESIGNS = ["".join(map(str, bits)) for bits in itertools.product((0, 1), repeat=6)]
PROCESSES = 2


def shards() -> Path:
    from mixrec_automl import paths

    return paths.home() / "damoe-bench"


@cache
def training():  # type: ignore[no-untyped-def]
    from mixrec_automl import paths
    from mixrec_automl.cluster.finetune_training import FinetuneTraining
    from mixrec_automl.config import load_config

    config = load_config("scientific-small", SETTINGS)
    return FinetuneTraining(config, paths.data_folder(config.data.name), paths.backbones_folder())


def train(cell: tuple[int, str]) -> float:
    """One (seed, design): reciprocal ranks [epochs, users] in one file, written at once. Returns its seconds."""
    import tempfile

    import torch

    from search_spaces.architecture import Architecture
    from trainers.finetune import finetune
    from trainers.metrics import per_user

    torch.set_num_threads(1)
    seed, bits = cell
    target = shards() / f"seed-{seed}-{bits}.npz"
    began = time.perf_counter()
    epochs: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        finetune(
            training().config.finetune,
            Architecture.from_bits([int(bit) for bit in bits]),
            training().load(),
            seed=seed,
            folder=Path(folder),
            on_epoch=lambda _: True,
            on_validation=lambda ranks: epochs.append(per_user(ranks)["mrr"]),
        )
    scratch = target.with_suffix(f".{os.getpid()}.tmp")
    with scratch.open("wb") as file:
        np.savez_compressed(file, reciprocal_ranks=np.stack(epochs))
    scratch.replace(target)
    return time.perf_counter() - began


def run(seeds: int, console: Console) -> None:
    """What is missing of `seeds` seeds, the first one first."""
    shards().mkdir(parents=True, exist_ok=True)
    cells = [(seed, bits) for seed in range(1, seeds + 1) for bits in DESIGNS]
    missing = [(seed, bits) for seed, bits in cells if not (shards() / f"seed-{seed}-{bits}.npz").exists()]
    console.print(f"{len(cells) - len(missing)} of {len(cells)} are there; {PROCESSES} processes of one thread")
    training().load()  # what is derived once is derived before they start
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        done = pool.imap_unordered(train, missing)
        seconds = list(track(done, "trainings", total=len(missing), console=console))
    if seconds:
        console.print(f"a training took {np.median(seconds):.1f} s (median), {max(seconds):.1f} s at most")


def write_table(console: Console) -> None:
    """One row for each (seed, design, epoch): its MRR, and the reciprocal rank of every user as float16."""
    rows: dict[str, list[object]] = {name: [] for name in ("design", "seed", "epoch", "mrr", "reciprocal_ranks")}
    for path in sorted(shards().glob("seed-*.npz")):
        _, seed, bits = path.stem.split("-")
        for epoch, values in enumerate(np.load(path)["reciprocal_ranks"], start=1):
            for name, value in zip(
                rows, (bits, int(seed), epoch, values.mean(), values.astype(np.float16)), strict=True
            ):
                rows[name].append(value)
    ranks = pa.array([values.tolist() for values in rows.pop("reciprocal_ranks")], pa.list_(pa.float16()))
    table = pa.table({**{name: pa.array(column) for name, column in rows.items()}, "reciprocal_ranks": ranks})
    table = table.replace_schema_metadata({"settings": " ".join(SETTINGS), "preset": "scientific-small"})
    pq.write_table(table, TABLE, compression="zstd", compression_level=19)
    console.print(f"{table.num_rows} rows, {TABLE.stat().st_size / 1e6:.2f} MB: {TABLE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("--seeds", type=int, default=2)
    commands.add_parser("table")
    commands.add_parser("analyse")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.seeds, Console())
    elif arguments.command == "table":
        write_table(Console())
    else:
        from damoe_bench_analysis import analyse

        analyse(TABLE, Console())
