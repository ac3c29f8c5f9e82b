"""Amazon's files of 2018 as their authors publish them."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from trainers.config import FilterConfig
from trainers.data.amazon import local, read_metadata, read_reviews
from trainers.data.errors import DataError
from trainers.data.prepare import prepare
from trainers.data.sources import Source
from trainers.data.store_format import open_prepared

METADATA: list[dict[str, Any]] = [
    {"asin": "A", "title": "Red &amp; blue lamp", "brand": "Acme", "category": ["Home", "Lamps"], "also_buy": ["B"]},
    {"asin": "B", "title": "Chair", "brand": "", "category": []},
    {"asin": "A", "title": "The same again"},
    {"asin": "C", "title": "<script> var aPageStart = (new Date()).getTime(); </script>", "category": ["Home"]},
    *({"asin": f"I{n}", "title": f"Thing {n}"} for n in range(12)),
]


def review(user: str, item: str, time: int) -> dict[str, Any]:
    return {"overall": 5.0, "reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "good"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    return path


def test_the_first_line_of_a_product_counts_and_a_script_is_no_title(tmp_path: Path) -> None:
    items = read_metadata(write(tmp_path / "meta_Things.json.gz", METADATA))
    assert items.ids[:3] == ["A", "B", "C"]
    assert {key: values[:3] for key, values in items.attributes.items()} == {
        "title": ["Red & blue lamp", "Chair", ""],
        "brand": ["Acme", "", ""],
        "category": ["Home Lamps", "", "Home"],
    }


def test_reviews_become_sequences_in_the_order_of_time(tmp_path: Path) -> None:
    """Products without a title or without metadata are dropped by the filter, which prints how many."""
    rows = [review(f"u{user}", f"I{(user + n) % 12}", 100 - n) for user in range(12) for n in range(6)]
    rows += [review("u0", "C", 1), review("u0", "gone", 2), rows[0]]
    source = Source(
        items=write(tmp_path / "meta_Things.json.gz", METADATA), reviews=write(tmp_path / "Things.json.gz", rows)
    )
    manifest = prepare("things", source, FilterConfig(), tmp_path / "prepared")
    counts = {at.step: (at.items, at.interactions) for at in manifest.counts}
    assert counts["read"][1] == 75
    assert counts["without exact duplicates"][1] == 74
    assert counts["items with a title"][1] == 72
    data = open_prepared(tmp_path / "prepared")
    ids = [data.catalogue.ids[item] for item in data.sequence(0)]
    assert ids == ["I5", "I4", "I3", "I2", "I1", "I0"]
    assert data.catalogue.sentences[0].startswith("title Thing")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"reviewerID": "u", "asin": "A"}], "no 'reviewerID', 'asin' and 'unixReviewTime'"),
        ([], "holds no interactions"),
    ],
)
def test_other_files_are_refused(rows: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    items = read_metadata(write(tmp_path / "meta.json.gz", METADATA))
    with pytest.raises(DataError, match=told):
        read_reviews(write(tmp_path / "reviews.json.gz", rows), items)
    with pytest.raises(DataError, match="no 'asin'"):
        read_metadata(write(tmp_path / "x.json.gz", [{"id": 1}]))


def test_a_url_is_fetched_once_and_its_failure_is_told(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    write(served / "meta_Things.json.gz", METADATA)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(served))

        def send_header(self, keyword: str, value: str) -> None:
            broken_off = keyword == "Content-Length" and "cut_" in self.path
            super().send_header(keyword, "1000000" if broken_off else value)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/meta_Things.json.gz"
    stages: list[str] = []
    kept = local(address, tmp_path / "downloads", stages.append)
    (served / "cut_Things.json.gz").write_bytes(b"half")
    with pytest.raises(DataError, match="bytes came"):
        local(address.replace("meta_", "cut_"), tmp_path / "downloads", print)
    (served / "metaFiles2").mkdir()
    (served / "metaFiles2" / "meta_Things.json.gz").write_bytes(b"other products")
    newer = local(address.replace("meta_", "metaFiles2/meta_"), tmp_path / "downloads", print)
    assert newer.read_bytes() == b"other products", "a file of the same name elsewhere is another one"
    newer.unlink()
    server.shutdown()
    server.server_close()
    assert kept.read_bytes() == (served / "meta_Things.json.gz").read_bytes()
    assert stages[-1].startswith("fetching meta_Things.json.gz: ")
    assert local(address, tmp_path / "downloads", stages.append) == kept, "kept, so no server is needed"
    with pytest.raises(DataError, match="Fetch it by hand and give its path") as caught:
        local(address.replace("meta_", "other_"), tmp_path / "downloads", stages.append)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "downloads" / "amazon").rglob("*") if path.is_file()] == [kept]
    for nameless in ("http://127.0.0.1:9/", "http://127.0.0.1:9/..", "http://[/x"):
        with pytest.raises(DataError, match="names no file"):
            local(nameless, tmp_path / "downloads", stages.append)
    assert local("~/x.json", tmp_path, stages.append) == Path("~/x.json").expanduser()
