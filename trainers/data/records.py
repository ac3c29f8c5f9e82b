"""Every file format as one stream of (row, fields), read once and never held whole.

Rows count from 1 as a text editor counts lines, a header included; Parquet has no header, its first row is 1.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.errors import DataError, bad_file, bad_row

GZIP_MAGIC = b"\x1f\x8b"
Fields = Mapping[str, Any]


def records(path: Path) -> Iterator[tuple[int, Fields]]:
    """Stream `path` as (row, fields), its format told by its name.

    `.jsonl` or `.json` (one object a line), `.csv` (comma, header), `.inter` and `.item` (RecBole's atomic files: tab,
    header of `name:type`), each also with `.gz`, and `.parquet`.

    Raises:
        DataError: unreadable, broken gzip, not UTF-8, malformed row, repeated column, unknown format.
    """
    if not path.is_file():
        raise bad_file(path, "there is no such file", "Check the path")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        return _json_lines(path)
    if name.endswith(".csv"):
        return _delimited(path, ",", csv.QUOTE_MINIMAL, typed_header=False)
    if name.endswith((".inter", ".item")):
        return _delimited(path, "\t", csv.QUOTE_NONE, typed_header=True)
    if name.endswith(".parquet"):
        return _parquet(path)
    raise bad_file(
        path, "unknown format", "Give a .jsonl, .json, .csv, .inter or .item file (.gz or not) or a .parquet file"
    )


def _lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text file, gzipped or not."""
    row = 0
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if path.suffix.lower() == ".gz" and not zipped:
                raise bad_file(path, "is not a gzip file although its name ends in .gz", "Rename or compress it")
            for row, line in enumerate(gzip.GzipFile(fileobj=raw) if zipped else raw, start=1):
                yield line.decode("utf-8-sig" if row == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise bad_row(path, row, f"not UTF-8 ({error.reason})", "Convert the file to UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        remedy = "Copy the file again from its source"
        raise bad_row(path, row + 1, f"the gzip stream is broken here ({error})", remedy) from error
    except OSError as error:
        raise bad_file(
            path, f"cannot be read ({error.strerror or error})", "Check the path and its permissions"
        ) from error


def _json_lines(path: Path) -> Iterator[tuple[int, Fields]]:
    for row, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if "\\u" in line:
                # A lone surrogate is valid JSON but no text: it could not be written or tokenised later.
                json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise bad_row(path, row, "holds half a surrogate pair", "Remove the \\ud... escape") from error
        except (ValueError, RecursionError) as error:
            raise bad_row(path, row, f"malformed JSON ({error})", "Give one JSON object on each line") from error
        if not isinstance(fields, dict):
            raise bad_row(path, row, "not a JSON object", "Give one JSON object on each line")
        yield row, fields


def _delimited(path: Path, delimiter: str, quoting: Any, *, typed_header: bool) -> Iterator[tuple[int, Fields]]:
    reader = csv.reader(_lines(path), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise bad_file(path, "has no header", "Name the columns in the first line")
        names = [_untyped(path, name) for name in header] if typed_header else [name.strip() for name in header]
        _refuse_repeated(path, names)
        for values in reader:
            if not values:
                continue
            if len(values) != len(names):
                problem = f"{len(values)} fields where the header has {len(names)}"
                raise bad_row(path, reader.line_num, problem, "Give every column of the header, quoting where needed")
            yield reader.line_num, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise bad_row(path, reader.line_num, f"malformed ({error})", "Check quotes and line ends") from error


def _untyped(path: Path, column: str) -> str:
    name, colon, _ = column.strip().partition(":")
    if not colon:
        raise bad_row(path, 1, f"column {column!r} is not 'name:type'", "Give the header of a RecBole atomic file")
    return name


def _refuse_repeated(path: Path, names: list[str]) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise bad_file(path, f"column {repeated[0]!r} appears twice", "Rename or remove one")


def _parquet(path: Path) -> Iterator[tuple[int, Fields]]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            _refuse_repeated(path, list(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=65_536):
                for fields in batch.to_pylist():
                    row += 1
                    yield row, fields
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise bad_row(path, row + 1, f"cannot be read as Parquet ({reason})", "Write the file again") from error
