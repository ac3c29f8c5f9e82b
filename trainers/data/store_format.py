"""The folder of a prepared data set: arrays to memory-map, two Parquet tables, one manifest.

    manifest.json        what it is, where it came from, counts, fingerprint
    offsets.npy          [U + 1] int64
    items.npy            [interactions] int32, oldest to newest inside a user
    timestamps.npy       [interactions] float64, where the source has time stamps
    held-out.npy         [U, 3] int64, `splits.HeldOut`, of a global split in time
    users.parquet        user
    catalogue.parquet    id, title, sentence, in item order
    tokens-KEY/          item tokens of one tokenizer (see item_text)

Written beside the folder and renamed, so no reader ever sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from trainers.config import STRICT, FilterConfig
from trainers.data.errors import DataError, bad_file
from trainers.data.filters import Counts
from trainers.data.names import Names, hash_as_json
from trainers.data.sequence_data import HELD_OUT, Catalogue, SequenceData
from trainers.data.splits import HeldOut
from trainers.errors import refusing

FORMAT = 1
SPLIT = f"leave-one-out, the last {HELD_OUT} of each user held out"
MANIFEST = "manifest.json"
AGAIN = "Prepare it again with --replace"


@dataclass(frozen=True, config=STRICT)
class SourceFile:
    """A file that was read."""

    path: str
    sha256: str


@dataclass(frozen=True, config=STRICT)
class Manifest:
    """What a prepared data set is."""

    name: str
    sources: tuple[SourceFile, ...]
    attributes: tuple[str, ...]
    """Keys of the item sentence, in order."""
    filters: FilterConfig
    counts: tuple[Counts, ...]
    """After each filter step; the last is what is stored."""
    has_timestamps: bool
    fingerprint: str
    split: str = SPLIT
    format: int = FORMAT


_MANIFESTS = TypeAdapter(Manifest)


def fingerprint(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    timestamps: NDArray[np.float64] | None,
    user_ids: Sequence[str],
    catalogue: Catalogue,
    filters: FilterConfig,
    split: str = SPLIT,
    held_out: HeldOut | None = None,
) -> str:
    """sha256 over content, filters and split: two data sets share it only if every result on them is comparable."""
    digest = hashlib.sha256()
    rules = {"filters": TypeAdapter(FilterConfig).dump_python(filters), "split": split, "format": FORMAT}
    digest.update(json.dumps(rules, sort_keys=True).encode() + b"\n")
    for names in (user_ids, catalogue.ids, catalogue.titles, catalogue.sentences):
        hash_as_json(digest, names)
        digest.update(b"\n")
    arrays: list[NDArray[Any] | None] = [offsets, items, timestamps]
    if held_out is not None:
        arrays.append(_as_array(held_out))
    for array in arrays:
        digest.update(f"{None if array is None else array.shape}\n".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def _as_array(held_out: HeldOut) -> NDArray[np.int64]:
    """[U, 3], as it is stored."""
    return np.stack([held_out.training_ends, held_out.validation, held_out.test], axis=1)


def write_prepared(
    folder: Path, manifest: Manifest, data: SequenceData, timestamps: NDArray[np.float64] | None, *, replace: bool
) -> None:
    """Write a prepared data set; an intact one with the same fingerprint is left as it is, tokens included.

    Raises:
        DataError: `folder` holds something else and `replace` is off, or is no prepared data set at all.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _must_make_way(folder, manifest, replace):
        _discard(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        np.save(made / "offsets.npy", data.offsets)
        np.save(made / "items.npy", data.items)
        if data.held_out is not None:
            np.save(made / "held-out.npy", _as_array(data.held_out))
        if timestamps is not None:
            np.save(made / "timestamps.npy", timestamps)
        pq.write_table(pa.table({"user": Names.of(data.user_ids).column}), made / "users.parquet")
        columns = {"id": data.catalogue.ids, "title": data.catalogue.titles, "sentence": data.catalogue.sentences}
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        pq.write_table(table, made / "catalogue.parquet")
        (made / MANIFEST).write_bytes(_MANIFESTS.dump_json(manifest, indent=1) + b"\n")
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            # Someone put a folder there in the meantime; that is only fine if it is this very data set.
            _must_make_way(folder, manifest, replace=False)


def _must_make_way(folder: Path, manifest: Manifest, replace: bool) -> bool:
    """Whether an existing folder has to go; False where there is none or it is this data set, intact."""
    if not folder.exists():
        return False
    if not (folder / MANIFEST).is_file():
        raise bad_file(folder, "is in the way and no prepared data set", "Move it or choose another --name")
    try:
        if open_prepared(folder).fingerprint == manifest.fingerprint:
            return False
    except DataError:
        pass  # damaged, or of another format: it goes only where the user says so
    if not replace:
        remedy = "Choose another --name, or replace it with --replace"
        raise bad_file(folder, f"already holds another data set named {folder.name!r}", remedy)
    return True


def _discard(folder: Path) -> None:
    """Remove a prepared folder: renamed first, so that it is whole or gone. Open memory maps stay valid."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-old-") as scratch:
        moved = folder.rename(Path(scratch) / folder.name)
        shutil.rmtree(moved)


def read_manifest(folder: Path) -> Manifest:
    """Read what a prepared data set is. Raises DataError if there is none or its format is another."""
    try:
        raw = json.loads((folder / MANIFEST).read_bytes())
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            problem = f"has format {raw.get('format')}, this version reads {FORMAT}"
            raise bad_file(folder, problem, AGAIN)
        return _MANIFESTS.validate_python(raw)
    except FileNotFoundError as error:
        raise bad_file(folder, "is no prepared data set", "See `mixrec-automl data prepare --help`") from error
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise bad_file(folder / MANIFEST, "is damaged", AGAIN) from error


def open_prepared(folder: Path) -> SequenceData:
    """Open a prepared data set: arrays memory-mapped, texts in memory, content checked against the fingerprint.

    Raises:
        DataError: there is none, or it is damaged.
    """
    manifest = read_manifest(folder)
    with refusing(f"{folder} is damaged", f". {AGAIN}", DataError):
        offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        items = np.load(folder / "items.npy", mmap_mode="r")
        timestamps = np.load(folder / "timestamps.npy", mmap_mode="r") if manifest.has_timestamps else None
        stored = None if manifest.split == SPLIT else np.load(folder / "held-out.npy")
        users = Names(pq.read_table(folder / "users.parquet")["user"].combine_chunks())
        table = pq.read_table(folder / "catalogue.parquet")
        catalogue = Catalogue(*(tuple(table[name].to_pylist()) for name in ("id", "title", "sentence")))
        held_out = None if stored is None else HeldOut(*(np.ascontiguousarray(column) for column in stored.T))
        found = fingerprint(offsets, items, timestamps, users, catalogue, manifest.filters, manifest.split, held_out)
    if found != manifest.fingerprint:
        raise bad_file(folder, "does not match its fingerprint: a file was changed", AGAIN)
    return SequenceData(offsets, items, users, catalogue, manifest.fingerprint, held_out)
