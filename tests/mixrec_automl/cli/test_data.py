"""`mixrec-automl data`: what it prints, stores and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mixrec_automl.cli.data import app
from tests.trainers.data.files import shop_items, shop_sequences, write_atomic, write_csv, write_jsonl
from trainers.data.ml_100k import BY_HAND
from trainers.errors import UserError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    items = write_jsonl(tmp_path / "items.jsonl.gz", shop_items())
    sequences = write_jsonl(tmp_path / "sequences.jsonl.gz", shop_sequences())
    return ["--name", "shop", "--items", str(items), "--sequences", str(sequences)]


def run(*arguments: str) -> Result:
    """Run to the end; any exception is the test's."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_prepare_list_and_show_agree(files: list[str], home: Path) -> None:
    result = run("prepare", *files)
    assert result.exit_code == 0
    steps = [[cell.strip() for cell in line.split("│")[1:5]] for line in result.stdout.splitlines() if "│" in line]
    assert steps == [
        ["read", "15", "15", "90"],
        ["without exact duplicates", "15", "15", "90"],
        ["items with a title", "15", "15", "90"],
        ["items with 4 or more interactions", "15", "15", "90"],
        ["users with 4 or more interactions", "15", "15", "90"],
    ]
    (known, shop, _) = json.loads(run("list", "--json").stdout)
    assert (known["name"], known["state"], known["known"]) == ("ml-100k", "can be fetched", True)
    assert (shop["name"], shop["state"], shop["users"], shop["folder"]) == (
        "shop",
        "prepared",
        15,
        str(home / "data/shop"),
    )
    shown = json.loads(run("show", "shop", "--json", "--history", "2").stdout)
    assert shown["fingerprint"] == shop["fingerprint"]
    assert shown["attributes"] == ["title", "brand"]
    assert shown["summary"]["targets_kept"] == pytest.approx(2 / 3)
    for text in ("training targets kept by a history of 2", "66.7%", shop["fingerprint"]):
        assert text in run("show", "shop", "--history", "2").stdout
    assert shop["fingerprint"][:12] in run("list").stdout


def test_prepare_json_and_filters(files: list[str]) -> None:
    manifest = json.loads(
        run("prepare", *files, "--json", "--min-item-interactions", "3", "--no-drop-duplicates").stdout
    )
    assert manifest["filters"]["min_item_interactions"] == 3
    assert [at["step"] for at in manifest["counts"]] == [
        "read",
        "items with a title",
        "items with 3 or more interactions",
        "users with 4 or more interactions",
    ]
    with pytest.raises(UserError, match="--replace"):
        run("prepare", *files)
    assert run("prepare", *files, "--replace").exit_code == 0


def test_interactions_and_attributes(files: list[str], tmp_path: Path) -> None:
    rows = [
        (row["user"], item, time)
        for row in shop_sequences()
        for item, time in zip(row["items"], row["ts"], strict=True)
    ]
    events = write_csv(tmp_path / "events.csv", ["user", "item", "timestamp"], rows)
    chosen = ["--attribute", "maker=brand", "--attribute", "title", "--json"]
    manifest = json.loads(run("prepare", *files[:4], "--interactions", str(events), *chosen).stdout)
    assert manifest["attributes"] == ["maker", "title"]


def test_a_known_set_from_a_folder_by_hand(tmp_path: Path) -> None:
    header = ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"]
    items = [(n, f"Film {n}", 1990, "Drama War") for n in range(15)]
    rows = [(user, (user + n) % 15, 5, n) for user in range(12) for n in range(6)]
    write_atomic(tmp_path / "ml-100k.item", header, items)
    write_atomic(
        tmp_path / "ml-100k.inter", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"], rows
    )
    manifest = json.loads(run("prepare", "ml-100k", "--name", "films", "--folder", str(tmp_path), "--json").stdout)
    assert (manifest["name"], manifest["attributes"]) == ("films", ["title", "year", "genres"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "give --name, --items and either --sequences or --interactions"),
        (["prepare", "nothing"], "no known data set 'nothing' .there is ml-100k, walks.. .* --name nothing"),
        (["prepare", "ml-100k", "--items", "x"], "brings its own files"),
        (["prepare", "ml-100k", "--folder", "/nowhere"], re.escape(BY_HAND)),
        (["prepare", "--name", "a b", "--items", "x.csv", "--interactions", "y.csv"], "'a b' is not valid"),
        (["prepare", "--name", "a", "--items", "x.csv", "--interactions", "y.csv"], "x.csv: there is no such file"),
        (["prepare", "--name", "a", "--folder", "x"], "--folder belongs to a known data set"),
        (["prepare", "--attribute", "a=", "--name", "a"], "give KEY or KEY=COLUMN"),
        (["prepare", "--name", "a", "--amazon-reviews", "x.json.gz"], "give --name, --amazon-metadata and --amazon-r"),
        (["prepare", "--amazon-reviews", "x.json.gz", "--items", "y"], "leave out the others"),
        (["show", "shop"], "'shop' is not prepared: run mixrec-automl data prepare --name shop"),
        (["show", "ml-100k"], "'ml-100k' is not prepared: run mixrec-automl data prepare ml-100k"),
    ],
)
def test_mistakes_are_user_errors_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


def test_list_shows_what_is_unusable(home: Path) -> None:
    (home / "data" / "odd").mkdir(parents=True)
    odd = next(row for row in json.loads(run("list", "--json").stdout) if row["name"] == "odd")
    assert odd["state"].startswith("unusable: ")
    assert "odd" in run("list").stdout


def test_table_1_of_the_paper_stands_beside_what_is_prepared(files: list[str]) -> None:
    run("prepare", "--name", "pantry", *files[2:])
    rows = {row["name"]: row for row in json.loads(run("check-table1", "--json").stdout)}
    assert rows["arts"] == {**rows["arts"], "ours": None, "equal": False}
    assert rows["pantry"]["ours"] == {"users": 15, "items": 15, "training interactions": 60}
    assert "15 / 14,178" in run("check-table1").stdout


@pytest.mark.parametrize("command", ["list", "prepare", "show"])
def test_help_gives_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"mixrec-automl data {command}" in result.stdout
