"""Data sets that need no files of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainers.data.ml_100k import ml_100k
from trainers.data.sources import Source
from trainers.data.walks import ITEMS, USERS, walks


@dataclass(frozen=True)
class KnownDataSet:
    """A data set that can be fetched by name."""

    name: str
    description: str
    licence: str
    fetch: Callable[[Path, Path | None], Source]
    """(cache for downloads, folder given by hand or None) -> its files"""


KNOWN = (
    KnownDataSet(
        "ml-100k",
        "MovieLens 100K: 943 users, 1,682 films with title, year and genres",
        "GroupLens: research use, no redistribution; cite Harper and Konstan 2015, doi 10.1145/2827872",
        ml_100k,
    ),
    KnownDataSet(
        "walks",
        f"made up, for trying things in seconds: {USERS} users walk through {ITEMS} items",
        "free",
        walks,
    ),
)


def find_known(name: str) -> KnownDataSet | None:
    return next((known for known in KNOWN if known.name == name), None)
