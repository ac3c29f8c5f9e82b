"""ML-100K out of its wheel: real files, so these tests need PyPI."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from trainers.config import FilterConfig
from trainers.data.errors import DataError
from trainers.data.ml_100k import ml_100k
from trainers.data.prepare import open_or_prepare, prepare
from trainers.data.statistics import summarise
from trainers.data.store_format import open_prepared, read_manifest
from trainers.wheels import WheelUnavailable


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downloads")
    ml_100k(folder)
    return folder


def test_prepared_on_first_use_with_facts_of_the_digest(downloads: Path, tmp_path: Path) -> None:
    data = open_or_prepare("ml-100k", FilterConfig(), tmp_path / "ml-100k", downloads)
    read = read_manifest(tmp_path / "ml-100k").counts[0]
    assert (read.users, read.items, read.interactions) == (943, 1682, 100_000)
    assert (data.num_users, data.num_items, len(data.items)) == (943, 1413, 99_543)
    toy_story = data.catalogue.index["1"]
    assert data.catalogue.titles[toy_story] == "Toy Story"
    assert data.catalogue.sentences[toy_story] == "title Toy Story year 1995 genres Animation Children's Comedy"
    # Ruling 7: a history of 50 keeps 40 % of the training targets.
    assert summarise(data, 50).targets_kept == pytest.approx(0.40, abs=0.005)
    # Ruling 14: 44 % of the users have a tie between their last two items.
    times = np.load(tmp_path / "ml-100k" / "timestamps.npy")
    assert (times[data.offsets[1:] - 1] == times[data.offsets[1:] - 2]).mean() == pytest.approx(0.44, abs=0.005)


def test_every_interaction_is_kept_in_stable_order(downloads: Path, tmp_path: Path) -> None:
    source = ml_100k(downloads)
    prepare("all", source, FilterConfig(min_item_interactions=0), tmp_path / "all")
    data = open_prepared(tmp_path / "all")
    assert source.interactions is not None
    histories = defaultdict(list)
    with source.interactions.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            histories[row["user_id:token"]].append((float(row["timestamp:float"]), row["item_id:token"]))
    assert sum(map(len, histories.values())) == len(data.items) == 100_000
    for user, identifier in enumerate(data.user_ids):
        ordered = [item for _, item in sorted(histories[identifier], key=lambda pair: pair[0])]
        assert [data.catalogue.ids[item] for item in data.sequence(user)] == ordered


def test_cached_files_are_used_without_network(
    downloads: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert ml_100k(downloads).items.is_file()
    with pytest.raises(WheelUnavailable, match=r"(?s)cannot download recbole==1\.2\.1.* --folder FOLDER"):
        ml_100k(tmp_path / "empty")
    assert not list((tmp_path / "empty").glob("ml-100k/*"))


def test_a_folder_by_hand(downloads: Path, tmp_path: Path) -> None:
    by_hand = downloads / "ml-100k"
    assert ml_100k(tmp_path, by_hand).items == by_hand / "ml-100k.item"
    with pytest.raises(DataError, match=r"there is no ml-100k\.item\. Without network, put"):
        ml_100k(tmp_path, tmp_path)
