"""Small data files in every format, written the plain way."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_atomic(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A RecBole atomic file."""
    lines = ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    pq.write_table(pa.table(dict(columns)), path)
    return path


def shop_items(count: int = 15) -> list[dict[str, Any]]:
    return [{"id": f"i{n}", "title": f"Thing {n}", "brand": "Acme" if n % 2 else ""} for n in range(count)]


def shop_sequences(users: int = 15, items: int = 15, length: int = 6) -> list[dict[str, Any]]:
    """Every item has at least four interactions, every user `length` distinct items and rising time stamps."""
    return [
        {
            "user": f"u{u}",
            "items": [f"i{(u * 2 + step) % items}" for step in range(length)],
            "ts": [1000 * u + step for step in range(length)],
        }
        for u in range(users)
    ]
