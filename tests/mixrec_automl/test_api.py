"""The Python side on recorded searches, which nothing trains. `tests/end_to_end/test_python.py` runs the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import mixrec_automl as mx
from mixrec_automl.api.model import Model
from mixrec_automl.api.result import SearchResult
from mixrec_automl.config import load_config
from mixrec_automl.report.page import DRAW
from mixrec_automl.report.style import INK
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.serving.loading import LoadedModel
from mixrec_automl.store.records import Origin, SearchState, best_trial
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.contracts.repository import ROOT
from tests.mixrec_automl.report.test_report import COMPLETED, NAME, record
from tests.mixrec_automl.store.writing import writer_of
from tests.trainers.tiny_package import make_package
from trainers.gates import gate_shares
from trainers.new_items import rank_new
from trainers.recommend import Query
from trainers.similar import similar_to_item

OVERRIDES = {"search.trials": 13, "search.confirmation_share": 0.3}
"""Over the preset `smoke`: what `record` records"""
BOTTLENECK = "model.bottleneck"
PLOTS = [name for name in dir(SearchResult) if name.startswith("plot_")]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """Of a home of its own."""
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "home"))
    for name in ("MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with closing(Repository.open()) as opened:
        yield opened


@pytest.fixture
def result(repository: Repository) -> SearchResult:
    """Of a complete search, with trials of every kind."""
    record(repository)
    return mx.load_search(NAME)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, SearchConfig | None]]:
    """What would have been run: how, under which name and with which configuration."""
    made: list[tuple[str, str, SearchConfig | None]] = []

    def start(config: SearchConfig, name: str, repository: Repository, _console: object) -> None:
        made.append(("start", name, config))
        repository.create_search(name, config.as_dict(), "fingerprint")

    def resume(name: str, *_: object) -> None:
        made.append(("resume", name, None))

    monkeypatch.setattr("mixrec_automl.start.start_search", start)
    monkeypatch.setattr("mixrec_automl.start.resume_search", resume)
    return made


def test_the_name_search_is_the_functions_whoever_is_imported_first() -> None:
    for first in ("mixrec_automl.search.proposer", "mixrec_automl.search", "mixrec_automl"):
        program = (
            f"import {first}, mixrec_automl as mx; import mixrec_automl.search.proposer; print(callable(mx.search))"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "True", first


def test_a_new_search_is_started_whatever_form_its_configuration_has(
    repository: Repository, calls: list[tuple[str, str, SearchConfig | None]], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {name: walks}\n")
    same = load_config(file)
    forms: list[Any] = [file, str(file), {"data": {"name": "walks"}}, same]
    for number, form in enumerate(forms):
        assert mx.search(form, f"s{number}").name == f"s{number}"
    assert calls == [("start", f"s{number}", same) for number in range(len(forms))]
    assert mx.search(file).name.startswith("mine-2")
    assert mx.search(same).name.startswith("walks-2")
    mx.search("smoke", overrides={"search.settings": {BOTTLENECK: [4, 8]}, "data.history": 7})
    assert calls[-1][2] == load_config("smoke", ["data.history=7", f"search.settings.{BOTTLENECK}=[4, 8]"])
    assert len(repository.searches()) == len(calls) == 7


def test_the_same_call_goes_on_with_a_search_and_leaves_a_complete_one(
    repository: Repository, calls: list[tuple[str, str, SearchConfig | None]]
) -> None:
    for state in (SearchState.STOPPED, SearchState.FAILED, SearchState.COMPLETED):
        calls.clear()
        mx.search("smoke", state.lower())
        writer_of(repository, state.lower()).set_state(state)
        again = mx.search("smoke", state.lower())
        assert (again.name, again.state) == (state.lower(), state)
        assert [what for what, *_ in calls] == ["start"] + ["resume"] * (state is not SearchState.COMPLETED)
    record(repository)
    calls.clear()
    assert len(mx.search("smoke", NAME, overrides=OVERRIDES).trials) == 15
    assert calls == []


def test_what_cannot_be_searched_is_refused(repository: Repository, calls: list[object]) -> None:
    record(repository)
    other = {**OVERRIDES, "data.history": 9, "search.settings": {BOTTLENECK: [4, 8]}}
    with pytest.raises(mx.UserError, match=rf"other values of data\.history, search\.settings\.{BOTTLENECK}: to go on"):
        mx.search("smoke", NAME, overrides=other)
    with pytest.raises(mx.UserError, match=r"values of backbone\.layers, .* and 20 more: "):
        mx.search({"data": {"name": "walks"}}, NAME)
    with pytest.raises(mx.UserError, match=r"--set: unknown key 'search.trails'; .* 'search.trials'"):
        mx.search("smoke", overrides={"search.trails": 3})
    with pytest.raises(mx.UserError, match=r"search name '\.\./x' is not valid"):
        mx.search("smoke", "../x")
    with ThreadPoolExecutor(1) as pool, pytest.raises(mx.UserError, match="main thread"):
        pool.submit(mx.search, "smoke").result()
    repository.create_search("grid", {"study": {}}, "fingerprint")
    for refused in (lambda: mx.search("smoke", "grid"), lambda: mx.load_search("grid")):
        with pytest.raises(mx.UserError, match="is a study"):
            refused()
    with pytest.raises(mx.UserError, match="did you mean 'first'"):
        mx.load_search("frist")
    assert calls == []


def test_tables_hold_what_is_recorded(repository: Repository, result: SearchResult) -> None:
    trials, seen = repository.trials(NAME), repository.observations(NAME)
    best = best_trial(trials)
    assert best is not None
    assert (result.name, result.state, result.error, result.best) == (NAME, "COMPLETED", None, best)
    assert repr(result) == f"<search 'first': COMPLETED, 15 trials, best trial {best.number} with MRR {best.mrr:.4f}>"

    table = result.trials
    assert list(table.index) == [trial.number for trial in trials]
    assert table.index.name == "trial"
    assert list(table["state"]) == [str(trial.state) for trial in trials]
    assert list(table["architecture"]) == [str(trial.architecture) for trial in trials]
    assert list(table["seed"]) == [trial.seed for trial in trials]
    completed = table.loc[table["state"] == "COMPLETED"]
    assert list(completed["mrr"]) == [trial.mrr for trial in trials if trial.mrr is not None]
    assert table["mrr"].isna().sum() == 2, "one failed, one was pruned"
    assert set(completed["standard_error"]) == {0.004}
    assert set(table["epochs"]) == {2}
    assert (table["finished_at"] - table["started_at"]).dt.total_seconds().tolist() == table["seconds"].tolist()
    assert table.loc[COMPLETED, "error"] == "ValueError: <b>no</b>"

    curves = result.curves
    assert len(curves) == len(seen) == 30
    last = curves.merge(completed, on="trial").query("epoch == 2")
    assert list(last["validation_mrr"]) == list(last["mrr"])


def test_settings_that_are_searched_are_columns_behind_the_bits(repository: Repository) -> None:
    config = load_config("smoke", [f"search.settings.{BOTTLENECK}=[4, 8]"])
    repository.create_search(NAME, config.as_dict(), "fingerprint")
    writer = writer_of(repository, NAME)
    for number, width in enumerate((4, 8)):
        design = Design.of(Architecture.parse("000-000-000-000"), {BOTTLENECK: width})
        writer.add_trials(number, design, [0], Origin.SOBOL, 0.1)
        writer.start_trial(number, 1)
        writer.complete_trial(number, 1, 0.1 * (number + 1), 0.01, {"trainable_parameters": 100.0 * width})
    result = mx.load_search(NAME)
    assert dict(result.best.settings) == {BOTTLENECK: 8}
    table = result.trials
    assert list(table.columns)[2:4] == ["architecture", BOTTLENECK]
    assert list(table[BOTTLENECK] * 100) == list(table["trainable_parameters"]) == [400, 800]
    with pytest.raises(mx.UserError, match=r"nothing for this figure, which needs .* no `search\.settings`"):
        result.plot_effects()


def test_every_figure_of_the_report_is_drawn_in_its_style(result: SearchResult) -> None:
    assert len(PLOTS) == len(DRAW)
    for name in PLOTS:
        if name == "plot_front":  # needs a second objective
            continue
        figure = getattr(result, name)()
        assert isinstance(figure, Figure)
        label = figure.axes[0].get_xticklabels()[0]
        assert to_hex(label.get_color()) == INK, name


def test_a_search_without_trials_has_empty_tables_and_says_what_is_missing(
    repository: Repository, tmp_path: Path
) -> None:
    repository.create_search(NAME, load_config("smoke").as_dict(), "fingerprint")
    result = mx.load_search(NAME)
    assert repr(result) == "<search 'first': RUNNING, 0 trials>"
    assert (len(result.trials), len(result.curves)) == (0, 0)
    assert result.trials["mrr"].dtype == "float64"
    assert isinstance(result.trials["started_at"].dtype, pd.DatetimeTZDtype)
    for name in PLOTS:
        with pytest.raises(mx.UserError, match="has nothing for this figure, which needs"):
            getattr(result, name)()
    for asked, told in (
        (lambda: result.best, "no completed trial"),
        (result.promote, "no completed trial"),
        (lambda: result.report(tmp_path / "out"), "no trial yet"),
    ):
        with pytest.raises(mx.UserError, match=told):
            asked()


def test_a_report_is_written_or_refused(result: SearchResult, tmp_path: Path) -> None:
    page = result.report(tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    assert f"{result.best.mrr:.4f}" in page.read_text("utf-8")
    (tmp_path / "file").write_text("")
    with pytest.raises(mx.UserError, match="cannot write the report to"):
        result.report(tmp_path / "file" / "out")


def test_what_cannot_be_promoted_or_loaded_is_refused(result: SearchResult) -> None:
    for number in (COMPLETED, 99):  # failed, and not there
        with pytest.raises(mx.UserError, match=f"no completed trial {number}: `trials` lists all"):
            result.promote(number)
    with pytest.raises(mx.UserError, match="mixrec-nobody"):
        mx.load_model("mixrec-nobody")


def test_a_model_is_asked_for_one_kind_of_history() -> None:
    model = Model(LoadedModel(None, "folder", object()))  # type: ignore[arg-type]
    assert (model.name, model.version, repr(model)) == ("folder", None, "<model 'folder'>")
    for asked in ({}, {"items": ["a"], "texts": ["b"]}):
        with pytest.raises(mx.UserError, match=r"either as items=\[\.\.\.\] or as texts=\[\.\.\.\]"):
            model.recommend(**asked)
    with pytest.raises(mx.UserError, match="identifiers of items are texts"):
        model.recommend(items=["a", 3])  # type: ignore[list-item]


def test_a_string_is_a_history_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Query] = []
    monkeypatch.setattr("trainers.recommend.recommend", lambda _package, query: asked.append(query) or [])
    model = Model(LoadedModel(None, "folder", object()))  # type: ignore[arg-type]
    model.recommend(items="50")
    model.recommend(texts=pd.Series(["a lamp", "a chair"]), k=3)
    assert asked == [Query(["50"]), Query(["a lamp", "a chair"], texts=True, k=3)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return mx.load_model(make_package(tmp_path_factory.mktemp("shop")).package)


HISTORY = ["i2", "i4", "i0", "i6"]


def test_items_are_allowed_and_denied(shop: Model) -> None:
    every = shop.recommend(HISTORY, k=99)
    few = shop.recommend(HISTORY, allow=["i3", "i5", "i7", "nothing we have"], deny="i5")
    assert set(few["item"]) == {"i3", "i7"}
    assert few.set_index("item")["score"].to_dict() == pytest.approx(
        {item: every.set_index("item")["score"][item] for item in ("i3", "i7")}
    )


@pytest.mark.parametrize("asked", [{"items": HISTORY}, {"texts": ["Thing 2", "Thing 4"]}])
def test_why_is_what_leaving_an_item_out_changes(shop: Model, asked: dict[str, list[str]]) -> None:
    (kind, history), *_ = asked.items()
    answers, reasons = shop.recommend(**asked, k=3), shop.why(**asked, k=3)
    assert list(reasons) == ["rank", "item", "title", "because", "because_title", "drop"]
    assert len(reasons) == 3 * len(history)
    for row in reasons.itertuples():
        without = shop.recommend(**{kind: [one for one in history if one != row.because]}, k=99)
        score = answers.set_index("item")["score"][row.item]
        assert row.drop == pytest.approx(score - without.set_index("item")["score"][row.item], abs=1e-5)
    assert reasons.groupby("rank")["drop"].is_monotonic_decreasing.all()
    alone = shop.why(**{kind: history[:1]})
    assert (len(alone), list(alone)) == (0, list(reasons))


def test_gates_similar_and_new_items_are_tables_of_what_the_commands_print(shop: Model) -> None:
    package = shop.loaded.package
    gates = shop.gates(HISTORY)
    assert gates["context_share"].tolist() == [one.context_share for one in gate_shares(package, Query(HISTORY))]
    assert gates["item"].tolist() == HISTORY
    near = shop.similar("i2", k=3)
    assert near["cosine"].tolist() == [one.cosine for one in similar_to_item(package, "i2", 3)]
    assert shop.similar(text="Thing 2", k=3)["item"].tolist()[0] == "i2"
    new = shop.rank_new(["a lamp", "Thing 4"], HISTORY)
    assert new["score"].tolist() == [one.score for one in rank_new(package, Query(HISTORY), ["a lamp", "Thing 4"])]
    assert list(new) == ["rank", "text", "score"]


def test_what_has_no_answer_is_refused(shop: Model) -> None:
    for asked in ({}, {"item": "i2", "text": "a lamp"}):
        with pytest.raises(mx.UserError, match=r"either as item='\.\.\.' or as text='\.\.\.'"):
            shop.similar(**asked)
    with pytest.raises(mx.UserError, match="k is 0, but must be at least 1"):
        shop.similar("i2", k=0)
    with pytest.raises(mx.UserError, match="no new item to rank"):
        shop.rank_new([], HISTORY)
    with pytest.raises(mx.UserError, match="descriptions of new items are texts"):
        shop.rank_new([3], HISTORY)  # type: ignore[list-item]


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("config", [5, None])
def test_what_is_no_configuration_is_refused(config: Any) -> None:
    with pytest.raises(mx.UserError, match="a configuration is a file, a preset's name or a dictionary, not "):
        mx.search(config)


@pytest.mark.usefixtures("repository")
def test_overrides_are_what_set_is(calls: list[tuple[str, str, SearchConfig | None]]) -> None:
    """They may give what the configuration lacks, and be of NumPy."""
    mx.search({"search": {"trials": 2}}, "s", overrides={"data.name": "walks", "search.trials": np.int64(3)})
    [(_how, _name, config)] = calls
    assert config is not None
    assert (config.data.name, config.search.trials) == ("walks", 3)
    calls.clear()
    settings = {"data.name": "walks", "search.settings.model.bottleneck": np.array([16, 32])}
    mx.search({"search": {"trials": 2}}, "t", overrides=settings)
    [(_how, _name, config)] = calls
    assert config is not None
    assert config.search.settings == {"model.bottleneck": [16, 32]}
    with pytest.raises(mx.UserError, match="give overrides as a dictionary"):
        mx.search("smoke", overrides=["search.trials=4"])  # type: ignore[arg-type]
