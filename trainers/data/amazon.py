"""Amazon's reviews of 2018 (version 2), as their authors publish them: one JSON object a line, gzipped or not.

Ni, Li and McAuley, EMNLP 2019. The metadata repeat some products; the first line of each counts. Some titles hold the
scripts of a web page instead of a name; those count as missing, as does a product that the metadata lack, so that the
filter of items without a title drops both and prints how many.
"""

from __future__ import annotations

import hashlib
import html
import re
from array import array
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from trainers.data.errors import DataError, bad_file, bad_row
from trainers.data.records import records
from trainers.data.tables import Interactions, ItemTable, as_interactions, item_text

ITEM, USER, TIME = "asin", "reviewerID", "unixReviewTime"
ATTRIBUTES = ("title", "brand", "category")
"""In the order of the item sentence (ruling 7)."""
_MARKUP = re.compile(r"<[a-zA-Z!/]|getTime|\bvar \w+ ?=")
_CHUNK = 1 << 20
_SECONDS = 60.0
"""How long a server may be silent."""


def local(address: str, downloads: Path, progress: Callable[[str], None]) -> Path:
    """The file at `address`, a path or an http(s) URL; what is fetched is kept in `downloads`.

    Raises:
        DataError: the URL does not answer.
    """
    if not address.startswith(("http://", "https://")):
        return Path(address).expanduser()
    try:
        name = Path(urlsplit(address).path).name
    except ValueError:
        name = ""
    if not name or name == ".." or "\0" in name:
        raise DataError(f"{address} names no file: give the address of meta_*.json.gz, or of the reviews beside it")
    # Other addresses have files of the same name: another year, another mirror.
    kept = downloads / "amazon" / hashlib.sha256(address.encode()).hexdigest()[:12] / name
    if kept.is_file():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = kept.with_name(f".{name}.part")
    try:
        with urlopen(address, timeout=_SECONDS) as answer, scratch.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                share = f" of {total >> 20:,}" if total else ""
                progress(f"fetching {name}: {file.tell() >> 20:,}{share} MB")
            if file.tell() < total:
                raise OSError(f"{file.tell():,} of {total:,} bytes came")
        scratch.replace(kept)
    except (OSError, ValueError, HTTPException) as error:
        raise DataError(f"{address} cannot be fetched ({error}). Fetch it by hand and give its path instead") from error
    finally:
        scratch.unlink(missing_ok=True)
    return kept


def read_metadata(path: Path) -> ItemTable:
    """Title, brand and category path of every product.

    Raises:
        DataError: no row, a row without `asin`, or a value that is no text.
    """
    ids: dict[str, int] = {}
    values: dict[str, list[str]] = {key: [] for key in ATTRIBUTES}
    for row, fields in records(path):
        item = fields.get(ITEM)
        if not isinstance(item, str) or not item:
            raise bad_row(path, row, f"no {ITEM!r}", "Give Amazon's metadata of 2018, meta_*.json.gz")
        if item in ids:
            continue
        ids[item] = row
        for key in ATTRIBUTES:
            text = html.unescape(item_text(path, row, key, fields.get(key)))
            values[key].append("" if _MARKUP.search(text) else text)
    if not ids:
        raise bad_file(path, "holds no items", "Give Amazon's metadata of 2018, meta_*.json.gz")
    return ItemTable(path, list(ids), values, list(ids.values()))


def read_reviews(path: Path, items: ItemTable) -> Interactions:
    """Every review as one interaction, whatever its stars. A product that `items` lack is added to them, without text.

    Raises:
        DataError: no row, or a row without reviewer, product or time.
    """
    index = {identifier: position for position, identifier in enumerate(items.ids)}
    numbers: dict[str, int] = {}
    users, item_numbers, times = array("i"), array("i"), array("d")
    for row, fields in records(path):
        user, item, time = fields.get(USER), fields.get(ITEM), fields.get(TIME)
        if not isinstance(user, str) or not isinstance(item, str) or not isinstance(time, int | float):
            problem = f"no {USER!r}, {ITEM!r} and {TIME!r}"
            raise bad_row(path, row, problem, "Give Amazon's reviews of 2018, *.json.gz")
        if item not in index:
            index[item] = len(index)
            items.ids.append(item)
            items.rows.append(row)
            for column in items.attributes.values():
                column.append("")
        users.append(numbers.setdefault(user, len(numbers)))
        item_numbers.append(index[item])
        times.append(time)
    return as_interactions(path, users, item_numbers, times, numbers)
