"""What `scaling.py` measures of data preparation, and with what: synthetic data, seconds, memory. Imports no torch.

No benchmark by itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.config import FilterConfig
from trainers.data.prepare import prepare
from trainers.data.sources import Source

LEAST, MOST = 4, 16
"""Interactions of a user: about 10."""
USERS_WRITTEN_AT_ONCE = 100_000

Measured = dict[str, float]


def memory(name: str) -> float:
    """A line of /proc/self/status in MB: VmHWM is the peak, RssAnon what is the process's own at the moment."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


@contextlib.contextmanager
def measured(into: Measured, name: str) -> Iterator[None]:
    """Seconds on the clock and of the processors, and peak memory, of a block."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    began, used = time.perf_counter(), time.process_time()
    yield
    into[f"{name}_seconds"], into[f"{name}_cpu"] = time.perf_counter() - began, time.process_time() - used
    into[f"{name}_peak"] = memory("VmHWM")


def draw(users: int, items: int, seed: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """(lengths, items) of some users at a time; popularity is Zipf's, with exponent 1."""
    rng = np.random.default_rng(seed)
    cumulated = np.cumsum(1 / np.arange(1, items + 1))
    names = rng.permutation(items).astype(np.int32)
    for first in range(0, users, USERS_WRITTEN_AT_ONCE):
        lengths = rng.integers(LEAST, MOST + 1, size=min(USERS_WRITTEN_AT_ONCE, users - first))
        yield lengths, names[np.searchsorted(cumulated, rng.random(int(lengths.sum())) * cumulated[-1])]


def write_source(folder: Path, users: int, items: int) -> None:
    """`items.jsonl` and `sequences.jsonl`."""
    with (folder / "items.jsonl").open("w") as file:
        file.writelines(f'{{"id": "i{item}", "title": "Thing {item}", "brand": "Acme"}}\n' for item in range(items))
    with (folder / "sequences.jsonl").open("w") as file:
        user = 0
        for lengths, drawn in draw(users, items):
            for row in np.split(drawn, np.cumsum(lengths)[:-1]):
                listed = ", ".join(f'"i{item}"' for item in row.tolist())
                file.write(f'{{"user": "u{user}", "items": [{listed}]}}\n')
                user += 1


def prepare_source(items: str, sequences: str, folder: str, keep_all: bool) -> Measured:
    found: Measured = {}
    filters = FilterConfig(min_item_interactions=0) if keep_all else FilterConfig()
    with measured(found, "prepare"):
        prepare("synthetic", Source(Path(items), sequences=Path(sequences)), filters, Path(folder))
    return found
