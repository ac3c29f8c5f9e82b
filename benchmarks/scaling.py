"""What users, items and workers cost: time and memory, each configuration in a process of its own.

    python benchmarks/scaling.py            all of it, about 15 minutes on 2 cores
    python benchmarks/scaling.py --quick    small sizes, about a minute
    python benchmarks/scaling.py --games ../shared/data/games_2018      preparing Amazon Games, seconds

`--users`, `--catalogue` and `--workers` run one part alone. Everything lies in a temporary folder, which needs 2 GB.

- users: synthetic data of about 10 interactions a user with Zipf popularity, 5,000 items, and at last 200,000 items.
  `prepare` reads JSON lines. `derive` is the first `load_task` on a data set, which computes what all workers share.
  With 200,000 items that takes hours, so there all but the tokens is random, with 200 hard negatives of each item.
  `start` is what a worker does then: `load_task`. `steps` are training steps of 8 users, after the first two, which
  `first` holds: they draw the epoch.
- catalogue: training steps of 8 users, 1,000 users in all.
- workers: training steps of 32 users shared by the workers, one thread each, against one worker with one thread.

Backbone: a random Llama of two layers of width 64. Peak is the largest resident memory of the phase; it has pages of
memory-mapped files in it, which the system takes back where it needs them. Own is what is not such a page, afterwards.
In brackets: seconds of the processors, which tell more where the machine has other work.
"user table" is M_cf's user embedding with gradient and two moments of AdamW: the one thing that has to grow with users.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scaling_data import Measured, prepare_source, write_source

ITEMS, CATALOGUE_USERS, WORKER_USERS, WORKER_BATCH = 5_000, 1_000, 4_000, 32
USERS = [*((10**power, ITEMS) for power in range(2, 7)), (1_000_000, 200_000)]
CATALOGUES = [1_000, 10_000, 100_000, 1_000_000]
QUICK_USERS, QUICK_ITEMS, QUICK_CATALOGUES = [100, 10_000], 500, [1_000, 10_000]
CONSOLE = Console(width=170)


def start(part: str, **of: Any) -> subprocess.Popen[str]:
    """One thread, so that what else runs on the machine disturbs little; deriving takes all there are."""
    command = [sys.executable, __file__, "--part", part, json.dumps(of)]
    threads = {} if part == "derive" else {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | threads)


def run_part(part: str, of: dict[str, Any]) -> None:
    """Run a part in this process and print what it measured as the last line."""
    if part == "prepare":
        print(json.dumps(prepare_source(**of)))
        return
    from scaling_parts import PARTS  # torch takes memory, which preparation does not need

    print(json.dumps(PARTS[part](**of)))  # type: ignore[operator]


def finish(process: subprocess.Popen[str]) -> Measured:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a part ended with {process.returncode}")
    found: Measured = json.loads(output.splitlines()[-1])
    return found


def measure(part: str, **of: Any) -> Measured:
    return finish(start(part, **of))


def whole(text: str) -> int:
    return int(float(text))


def size(text: str) -> tuple[int, int]:
    users, _, items = text.partition("x")
    return whole(users), whole(items) if items else ITEMS


def seconds(found: Measured, name: str) -> str:
    """On the clock, and of the processors where others kept them busy or two of them worked."""
    wall, used = found[f"{name}_seconds"], found[f"{name}_cpu"]
    return f"{wall:.1f} s ({used:.1f})" if wall >= 1 else f"{1000 * wall:.0f} ms ({1000 * used:.0f})"


def mb(value: float) -> str:
    return f"{value:,.0f} MB"


def table(title: str, *headings: str) -> Table:
    made = Table(title=title)
    for heading in headings:
        made.add_column(heading, justify="right")
    return made


def users_part(sizes: list[tuple[int, int]], folder: Path) -> None:
    backbone = folder / "backbone"
    measure("backbone", folder=str(backbone))
    shown = table("preparing, deriving, starting", "users", "items", *_with_peak("prepare", "derive", "start"), "own")
    trained = table("training", "users", "items", "columns", "first", "a step", "peak", "own", "user table")
    for users, items in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            at = Path(name)
            write_source(at, users, items)
            of = {"folder": f"{at}/prepared", "backbone": str(backbone)}
            files = {"items": f"{at}/items.jsonl", "sequences": f"{at}/sequences.jsonl"}
            found = measure("prepare", **files, folder=of["folder"], keep_all=True)
            found |= measure("derive", **of, stand_in=items > ITEMS)
            size = f"{users:,}", f"{items:,}"
            for columns in ("none", "item"):
                found |= measure("start", **of, columns=columns)
                times = seconds(found, "first"), seconds(found, "steps")
                sizes_of = (mb(found[key]) for key in ("train_peak", "train_own", "user_table"))
                trained.add_row(*size, columns, *times, *sizes_of)
            shown.add_row(*size, *_values(found, "prepare", "derive", "start"), mb(found["start_own"]))
        CONSOLE.print(f"{users:,} users, {items:,} items: a worker's own memory before: {mb(found['imports'])}")
    CONSOLE.print(shown)
    CONSOLE.print(trained)


def catalogue_part(sizes: list[int]) -> None:
    shown = table("catalogue", "items", *_with_peak("build"), *_with_peak("a step"), "own")
    for items in sizes:
        arguments = {"users": CATALOGUE_USERS, "columns": "item", "workers": 0, "rank": 0, "meeting": "", "batch": 8}
        found = measure("by_hand", items=items, **arguments)
        shown.add_row(f"{items:,}", *_values(found, "build", "steps"), mb(found["train_own"]))
    CONSOLE.print(shown)


def workers_part(counts: list[int], items: int, folder: Path) -> None:
    shown = table("workers, one thread each", "workers", "steps a second", "against one", "peak of each")
    alone = 0.0
    for workers in counts:
        meeting = str(folder / uuid.uuid4().hex)
        of = {"users": WORKER_USERS, "items": items, "columns": "item", "workers": workers, "batch": WORKER_BATCH}
        found = [finish(each) for each in [start("by_hand", rank=at, meeting=meeting, **of) for at in range(workers)]]
        rate = 1 / max(each["steps_seconds"] for each in found)
        alone = alone or rate
        shown.add_row(str(workers), f"{rate:.2f}", f"{rate / alone:.2f}", mb(max(each["train_peak"] for each in found)))
    CONSOLE.print(shown)


def games_part(source: Path, folder: Path) -> None:
    files = {"items": str(source / "items.jsonl.gz"), "sequences": str(source / "sequences.jsonl.gz")}
    found = measure("prepare", **files, folder=f"{folder}/games", keep_all=False)
    CONSOLE.print(f"{source.name}: prepared in {seconds(found['prepare_seconds'])}, peak {mb(found['prepare_peak'])}")


def _with_peak(*names: str) -> list[str]:
    return [heading for name in names for heading in (name, "peak")]


def _values(found: Measured, *names: str) -> list[str]:
    return [text for name in names for text in (seconds(found, name), mb(found[f"{name}_peak"]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--users",
        type=size,
        nargs="*",
        help="numbers of users, as 1e6 or 1e6x2e5 with items; with none, the usual ones",
    )
    parser.add_argument("--catalogue", type=whole, nargs="*", help="numbers of items; with none, the usual ones")
    parser.add_argument("--workers", type=int, nargs="*", help="numbers of workers; with none, 1 and 2")
    parser.add_argument("--games", type=Path, help="a folder with items.jsonl.gz and sequences.jsonl.gz")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_part(given.part[0], json.loads(given.part[1]))
        return
    every = all(part is None for part in (given.users, given.catalogue, given.workers, given.games))
    items = QUICK_ITEMS if given.quick else ITEMS
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        if given.games is not None:
            games_part(given.games, folder)
        if every or given.users is not None:
            usual = [(users, items) for users in QUICK_USERS] if given.quick else USERS
            users_part(given.users or usual, folder)
        if every or given.catalogue is not None:
            catalogue_part(given.catalogue or (QUICK_CATALOGUES if given.quick else CATALOGUES))
        if every or given.workers is not None:
            workers_part(given.workers or [1, 2], items, folder)


if __name__ == "__main__":
    main()
