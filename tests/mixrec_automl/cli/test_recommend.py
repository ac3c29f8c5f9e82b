"""`recommend` and `similar` as they are typed: tables, the shapes of `--json`, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from tests.trainers.baselines.test_package import packed
from tests.trainers.tiny_package import make_package
from tests.trainers.tiny_task import sequences


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_package(tmp_path_factory.mktemp("made"), epochs=8).package)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("baseline")
    packed("mf", folder)
    return str(folder / "package")


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result.output


def answer(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


HISTORY = ("--item", "i3", "--item", "i4", "--item", "i5")


def test_without_why_json_is_the_plain_list(package: str) -> None:
    found = answer("recommend", package, *HISTORY, "-k", "2")
    assert [sorted(one) for one in found] == [["item", "rank", "score", "title"]] * 2


def test_why_adds_reasons_to_each_item_and_gates_to_the_history(package: str) -> None:
    found = answer("recommend", package, *HISTORY, "-k", "2", "--why")
    assert sorted(found) == ["gates", "recommendations"]
    plain = answer("recommend", package, *HISTORY, "-k", "2")
    for one, alone in zip(found["recommendations"], plain, strict=True):
        assert {key: value for key, value in one.items() if key != "why"} == alone
        assert sorted(reason["item"] for reason in one["why"]) == ["i3", "i4", "i5"]
        assert all(sorted(reason) == ["drop", "item", "title"] for reason in one["why"])
    assert [(one["item"], one["title"]) for one in found["gates"]] == [(f"i{n}", f"Thing {n}") for n in (3, 4, 5)]
    assert all(0 < one["context_share"] < 1 for one in found["gates"])


def test_the_table_names_the_items_with_the_largest_drops(package: str) -> None:
    said = run("recommend", package, *HISTORY, "-k", "3", "--why")
    (first,) = answer("recommend", package, *HISTORY, "-k", "1", "--why")["recommendations"]
    told = [f"{one['title']} ({one['drop']:.2f})" for one in first["why"] if one["drop"] >= 0.005]
    assert told, "the case has a reason"
    assert "because of" in said
    assert ", ".join(told) in said
    assert "share of the context-masked attention" in said
    assert "because of" not in run("recommend", package, *HISTORY)


def test_a_single_item_has_nothing_to_compare_with(package: str) -> None:
    assert "nothing to compare" in run("recommend", package, "--item", "i3", "--why")
    found = answer("recommend", package, "--item", "i3", "--why", "-k", "2")
    assert [one["why"] for one in found["recommendations"]] == [[], []]


def test_a_baseline_gives_reasons_and_no_gates(baseline: str) -> None:
    history = [word for item in sequences().catalogue.ids[3:5] for word in ("--item", item)]
    found = answer("recommend", baseline, *history, "--why", "-k", "1")
    assert len(found["recommendations"][0]["why"]) == 2
    assert found["gates"] == []
    assert "attention" not in run("recommend", baseline, *history, "--why")


def test_new_items_stand_in_place_of_the_catalogue(package: str) -> None:
    words = ("recommend", package, *HISTORY, "--new", "a lamp", "--new", "Thing 6")
    found = answer(*words)
    assert {one["text"] for one in found} == {"a lamp", "Thing 6"}
    assert [sorted(one) for one in found] == [["rank", "score", "text"]] * 2
    assert "by their text" in run(*words)
    assert run(*words, "--why", code=2).startswith("error: --new ranks other items")
    many = [word for number in range(12) for word in ("--new", f"Thing {number}")]
    assert len(answer("recommend", package, *HISTORY, *many)) == 12, "all that are given"
    assert len(answer("recommend", package, *HISTORY, *many, "-k", "3")) == 3


def test_some_are_allowed_and_some_are_not(package: str) -> None:
    words = ("recommend", package, *HISTORY)
    every = {one["item"]: one["score"] for one in answer(*words, "-k", "99")}
    some = answer(*words, "--allow", "i1", "--allow", "i5", "--allow", "i7", "--deny", "i5")
    assert {one["item"]: one["score"] for one in some} == {item: every[item] for item in ("i1", "i7")}
    assert "nothing is left to recommend" in run(*words, "--allow", "nope")


def test_similar_items(package: str) -> None:
    found = answer("similar", package, "--item", "i3", "-k", "4")
    assert [sorted(one) for one in found] == [["cosine", "item", "rank", "title"]] * 4
    said = run("similar", package, "--item", "i3", "-k", "4")
    assert "nearest to Thing 3" in said
    assert found[0]["title"] in said
    assert "nearest to a lamp" in run("similar", package, "--text", "a lamp")


def test_what_similar_refuses(package: str, baseline: str) -> None:
    for words in ((), ("--item", "i1", "--text", "a lamp")):
        assert "either with --item ID or with --text TEXT" in run("similar", package, *words, code=2)
    assert "item 'nope' is not among" in run("similar", package, "--item", "nope", code=2)
    assert "only MixRec" in run("similar", baseline, "--text", "a lamp", code=2)
    assert "only MixRec" in run("recommend", baseline, *HISTORY, "--new", "a lamp", code=2)
