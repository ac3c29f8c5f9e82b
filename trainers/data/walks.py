"""A made-up data set of seconds, for trying the whole chain without network: users who walk through a small catalogue.

The next item follows from the last one, most of the time, so that a model which learns anything beats popularity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.errors import DataError
from trainers.data.sources import Source

USERS, ITEMS, SEED = 60, 40, 20240807
COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("lamp", "chair", "table", "shelf", "clock", "vase", "rug", "mirror")
JUMP = 0.2
"""Chance that a step leads anywhere instead of to the next item."""


def walks(downloads: Path, folder: Path | None = None) -> Source:
    """Writes the files; the same each time. Raises DataError where a folder is given: there is nothing to read."""
    if folder is not None:
        raise DataError("walks are made up and have no files: leave out --folder")
    rng = np.random.default_rng(SEED)
    names = [f"{colour} {thing}" for thing in THINGS for colour in COLOURS]
    items = [{"id": f"w{number}", "title": name} for number, name in enumerate(names)]
    sequences: list[dict[str, Any]] = []
    for user in range(USERS):
        place = int(rng.integers(ITEMS))
        walk = []
        for _ in range(int(rng.integers(5, 11))):
            walk.append(f"w{place}")
            place = int(rng.integers(ITEMS)) if rng.random() < JUMP else (place + 1) % ITEMS
        sequences.append({"user": f"u{user}", "items": walk})
    written = downloads / "walks"
    written.mkdir(parents=True, exist_ok=True)
    for name, rows in (("items.jsonl", items), ("sequences.jsonl", sequences)):
        scratch = written / f".{name}"
        scratch.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        scratch.replace(written / name)
    return Source(items=written / "items.jsonl", sequences=written / "sequences.jsonl")
