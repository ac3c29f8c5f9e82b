"""From source files to a prepared data set: read, filter, order, number, store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from trainers.config import FilterConfig
from trainers.data.errors import DataError, bad_file, bad_row
from trainers.data.filters import Counts, apply_filters
from trainers.data.item_text import item_sentence
from trainers.data.known import find_known
from trainers.data.sequence_data import Catalogue, SequenceData
from trainers.data.sources import Source, read
from trainers.data.splits import TemporalSplit, temporal_split
from trainers.data.store_format import (
    SPLIT,
    Manifest,
    SourceFile,
    fingerprint,
    open_prepared,
    read_manifest,
    write_prepared,
)
from trainers.data.tables import Interactions, ItemTable
from trainers.progress import Progress, silent

LEAST_USERS = 10
"""Every score is an average over users with a standard error, which fewer cannot carry."""
LEAST_ITEMS = 11
"""Among ten items Recall@10 is always 1."""


def prepare(
    name: str,
    source: Source,
    filters: FilterConfig,
    folder: Path,
    *,
    temporal: TemporalSplit | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Read `source`, filter it and store it in `folder`.

    Items are numbered in the order of the items file and users in the order of first appearance, so no number tells
    anything about what a user did later. Sequences are in the order of time, equal time stamps in file order
    (ruling 14).

    Args:
        temporal: a global split in time; None is leave-one-out.
        replace: overwrite another data set in `folder`; the same one is left as it is either way.
        progress: told the name of each stage before it starts.

    Raises:
        DataError: bad input, too little left, or `folder` is taken.
    """
    progress(f"reading {', '.join(path.name for path in source.files)}")
    table, interactions = read(source)
    progress("filtering")
    titles = table.attributes.get("title", [""] * len(table.ids))
    if filters.require_title and not any(titles):
        raise bad_file(table.path, "no item has a title", "Fill a 'title' column or give --no-require-title")
    kept = apply_filters(interactions, titles, filters)
    _refuse_too_little(interactions.path, kept.counts)
    if temporal is not None and interactions.timestamps is None:
        raise bad_file(
            interactions.path, "has no time stamps", "Give a time stamp in every row, or leave out --temporal"
        )
    data, timestamps = _arrange(table, interactions, kept.interactions, kept.items, filters, temporal)
    _refuse_too_few_held_out(interactions.path, data)
    progress("storing")
    manifest = Manifest(
        name=name,
        sources=tuple(SourceFile(str(path.absolute()), _sha256(path)) for path in source.files),
        attributes=tuple(table.attributes),
        filters=filters,
        counts=kept.counts,
        has_timestamps=timestamps is not None,
        fingerprint=data.fingerprint,
        split=SPLIT if temporal is None else temporal.told,
    )
    write_prepared(folder, manifest, data, timestamps, replace=replace)
    return manifest


def open_or_prepare(
    name: str, filters: FilterConfig, folder: Path, downloads: Path, *, progress: Progress = silent
) -> SequenceData:
    """Open the data set prepared in `folder`; a known one that is not there yet is prepared first.

    Args:
        downloads: where a known data set's files are cached.

    Raises:
        DataError: `name` is neither prepared nor known, or was prepared with other filters.
        WheelUnavailable: a known data set could not be fetched.
    """
    if not folder.exists():
        known = find_known(name)
        if known is None:
            remedy = f"Prepare it: mixrec-automl data prepare --name {name} --items FILE --sequences FILE"
            raise DataError(f"there is no data set {name!r}. {remedy}")
        prepare(name, known.fetch(downloads, None), filters, folder, progress=progress)
    have = read_manifest(folder).filters
    if have != filters:
        fields = FilterConfig.__dataclass_fields__
        differing = [field for field in fields if getattr(have, field) != getattr(filters, field)]
        told = ", ".join(f"{field}={getattr(have, field)} (wanted {getattr(filters, field)})" for field in differing)
        remedy = "Set data.filters to those, or prepare it again under another --name or with --replace"
        raise bad_file(folder, f"{name!r} was prepared with {told}", remedy)
    return open_prepared(folder)


def _arrange(
    table: ItemTable,
    interactions: Interactions,
    kept: np.ndarray,
    catalogued: np.ndarray,
    filters: FilterConfig,
    temporal: TemporalSplit | None,
) -> tuple[SequenceData, np.ndarray | None]:
    """Number what is kept and put each user's interactions in the order of time."""
    item_number = np.cumsum(catalogued) - 1
    users, items = interactions.users[kept], item_number[interactions.items[kept]].astype(np.int32)
    timestamps = None if interactions.timestamps is None else interactions.timestamps[kept]
    # Both sorts are stable: what they hold equal stays in file order.
    order = np.argsort(users, kind="stable") if timestamps is None else np.lexsort((timestamps, users))
    numbers, lengths = np.unique(users, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = items[order]
    timestamps = None if timestamps is None else timestamps[order]
    user_ids = tuple(interactions.user_ids[number] for number in numbers)
    catalogue = _catalogue(table, catalogued)
    held_out, split = None, SPLIT
    if temporal is not None and timestamps is not None:
        held_out, split = temporal_split(offsets, timestamps, temporal), temporal.told
    mark = fingerprint(offsets, items, timestamps, user_ids, catalogue, filters, split, held_out)
    return SequenceData(offsets, items, user_ids, catalogue, mark, held_out), timestamps


def _catalogue(table: ItemTable, catalogued: np.ndarray) -> Catalogue:
    ids: list[str] = []
    titles: list[str] = []
    sentences: list[str] = []
    for item in np.flatnonzero(catalogued):
        attributes = {key: values[item] for key, values in table.attributes.items()}
        sentence = item_sentence(attributes)
        if not sentence:
            problem = f"item {table.ids[item]!r} has no text at all"
            raise bad_row(table.path, table.rows[item], problem, f"Fill one of {', '.join(attributes)}")
        ids.append(table.ids[item])
        titles.append(attributes.get("title", ""))
        sentences.append(sentence)
    return Catalogue(tuple(ids), tuple(titles), tuple(sentences))


def _refuse_too_little(path: Path, counts: tuple[Counts, ...]) -> None:
    left = counts[-1]
    if left.users >= LEAST_USERS and left.items >= LEAST_ITEMS:
        return
    steps = "; ".join(f"{at.step}: {at.users} users, {at.items} items" for at in counts)
    raise bad_file(
        path,
        f"{left.users} users and {left.items} items are left ({steps}), at least {LEAST_USERS} users are needed for a "
        f"score with a standard error and {LEAST_ITEMS} items for a Recall@10 that means something",
        "Give more data or loosen the filters (--min-item-interactions, --min-user-interactions)",
    )


def _refuse_too_few_held_out(path: Path, data: SequenceData) -> None:
    for split in ("validation", "test"):
        users = len(data.users_with(split))
        if users < LEAST_USERS:
            problem = f"{users} users have a {split} item, at least {LEAST_USERS} are needed"
            raise bad_file(path, problem, "Hold out a larger share, or more data")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
