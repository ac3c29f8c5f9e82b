"""Hard sets kept beside the data they belong to: they cost hours on a large catalogue and depend on no training.

hard-sets-KEY/
    offsets.npy, items.npy                                       the hard set of each item
    user_offsets.npy, user_items.npy, item_offsets.npy, ...      who trained on what: `CoOccurrence`
    fingerprint.json
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.cached import cached_folder
from trainers.data import hard_negatives, item_factors
from trainers.data.co_occurrence import CoOccurrence
from trainers.data.hard_negatives import HardSets, fingerprint_of, hard_rows
from trainers.data.sequence_data import SequenceData
from trainers.progress import Progress, silent

VERSION = 1
"""Raise it where `hard_negatives` or `item_factors` comes to other sets from the same data."""
_ARRAYS = tuple(field.name for field in fields(CoOccurrence))


def stored_hard_sets(
    prepared: Path,
    data: SequenceData,
    text_vectors: NDArray[np.float32],
    *,
    share: float,
    encoder: str,
    made_of: str,
    progress: Progress = silent,
) -> HardSets:
    """`hard_sets`, computed only where `prepared` does not hold them yet, and memory-mapped.

    Args:
        made_of: names data, users and text vectors: all that decides on the sets beside the arguments here.

    Raises:
        ValueError: as `hard_sets`.
    """
    rules = (VERSION, hard_negatives.LEAST_NEAREST, hard_negatives.TIE, item_factors.DIMENSIONS)
    sketch = (item_factors.OVERSAMPLING, item_factors.SUBSPACE_ITERATIONS, item_factors.SEED)
    key = hashlib.sha256(json.dumps([rules, sketch, share, encoder, made_of]).encode()).hexdigest()[:16]

    def write(folder: Path) -> None:
        together = CoOccurrence.of(data)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(together, name))
        offsets, items = _write_rows(folder, together, text_vectors, share, progress)
        mark = fingerprint_of(offsets, items, together, share=share, encoder=encoder)
        (folder / "fingerprint.json").write_text(json.dumps(mark) + "\n")

    folder = cached_folder(prepared / f"hard-sets-{key}", write)
    together = CoOccurrence(**{name: _mapped(folder, name) for name in _ARRAYS})
    mark = json.loads((folder / "fingerprint.json").read_text())
    return HardSets(_mapped(folder, "offsets"), _mapped(folder, "items"), together, mark)


def _write_rows(
    folder: Path, together: CoOccurrence, text_vectors: NDArray[np.float32], share: float, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets and, memory-mapped, items. Large catalogues have gigabytes of them, so they never are in memory."""
    lengths = np.zeros(together.num_items, dtype=np.int64)
    raw = folder / "items.raw"
    with raw.open("wb") as file:
        for rows in hard_rows(together, text_vectors, share, progress):
            lengths[rows.anchors] = rows.lengths
            rows.items.tofile(file)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(folder / "offsets.npy", offsets)
    # The length of an array stands before its content, and is known only now.
    np.save(folder / "items.npy", np.memmap(raw, np.int32, mode="r") if offsets[-1] else np.empty(0, dtype=np.int32))
    raw.unlink()
    return offsets, _mapped(folder, "items")


def _mapped(folder: Path, name: str) -> Any:
    # As a plain array: each slice of a np.memmap is one again, which takes several times as long.
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
