"""`baselines run` and `baselines compare`, in threads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from mixrec_automl.config import load_config, with_settings
from mixrec_automl.store.records import Origin
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies.catalogue import TITLES
from mixrec_automl.studies.tune import dotted
from trainers.baselines.config import BaselineName
from trainers.baselines.floors import floors
from trainers.baselines.spaces import SPACES
from trainers.data.users import open_users
from trainers.metrics import summarise


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["baselines", *arguments], catch_exceptions=False)


def as_rows(*arguments: str) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(invoke("compare", *arguments, "--json").output)}


def test_models_are_trained_once_and_compared(home: Path) -> None:
    first = invoke("run", "gru4rec", "mf", "--smoke", "--seeds", "2")
    assert first.exit_code == 0, first.output
    assert "MRR minus GRU4Rec" in first.output
    assert "epochs" not in first.output, "they end at a plateau"
    trials = Repository.open().trials("baselines-gru4rec-mf-walks")
    assert [(trial.variant, trial.seed) for trial in trials] == [
        ("GRU4Rec", 1),
        ("MF", 1),
        ("GRU4Rec", 2),
        ("MF", 2),
    ]
    assert invoke("run", "gru4rec", "mf", "--smoke", "--seeds", "2").exit_code == 0
    assert Repository.open().trials("baselines-gru4rec-mf-walks") == trials, "nothing is trained twice"
    other = invoke("run", "gru4rec", "mf", "--smoke", "--seeds", "2", "--set", "baselines.mf.dim=4")
    assert other.exit_code == 2
    assert "baselines.mf.dim" in other.output

    assert invoke("run", "sasrec", "--smoke").exit_code == 0
    rows = as_rows("--data", "walks")
    assert {"GRU4Rec", "MF", "SASRec", "popularity", "item-knn", "markov"} <= set(rows)
    best = max(("GRU4Rec", "MF", "SASRec"), key=lambda name: rows[name]["validation_mrr"])
    assert [name for name in ("GRU4Rec", "MF", "SASRec") if not rows[name]["differences"]] == [best]
    assert rows["GRU4Rec"]["seeds"] == [1, 2]
    assert (rows["GRU4Rec"]["started_from"], rows["markov"]["started_from"]) == ("random weights", None)
    tested = [trial.metrics["test_mrr"] for trial in trials if trial.variant == "MF"]
    assert rows["MF"]["metrics"]["mrr"] == pytest.approx(sum(tested) / 2)
    data = open_users(home / "data" / "walks", 1.0, 0)
    unseen = {one.name: summarise(one.ranks).mrr for one in floors(data, "test") if one.exclude_seen}
    left_out = as_rows("--data", "walks", "--exclude-seen")
    assert left_out["item-knn"]["metrics"]["mrr"] == pytest.approx(unseen["item-knn"])
    assert not as_rows("--data", "walks", "--reference", "MF")["MF"]["differences"]
    shown = invoke("compare", "--data", "walks", "--slices")
    for told in ("all models on walks", "GRU4Rec", "SASRec", "from random weights", "test MRR by slice"):
        assert told in shown.output

    for trial in trials[:2]:
        package = str(home / "runs" / "baselines-gru4rec-mf-walks" / "trials" / str(trial.number) / "package")
        known = list(data.catalogue.ids[:3])
        arguments = ["recommend", package, *(part for one in known for part in ("--item", one)), "-k", "4", "--json"]
        found = CliRunner().invoke(app, [*arguments, "--exclude-seen"], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        items = [row["item"] for row in json.loads(found.output)]
        assert len(set(items) - set(known)) == 4
        refused = CliRunner().invoke(app, ["recommend", package, "--text", "a ball"], catch_exceptions=False)
        assert refused.exit_code == 2
        assert "knows items alone" in refused.output


def test_every_model_has_a_title_and_runs(home: Path) -> None:  # noqa: ARG001
    ran = invoke("run", "all", "--smoke", "--name", "everything")
    assert ran.exit_code == 0, ran.output
    assert {trial.variant for trial in Repository.open().trials("everything")} == set(TITLES.values())


def test_weights_that_are_missing_are_told_before_anything_trains(home: Path) -> None:  # noqa: ARG001
    before = len(Repository.open().searches())
    for model in ("unisrec", "recformer", "p5"):
        refused = invoke("run", model, "--smoke", "--set", f"baselines.{model}.weights=/nowhere")
        assert refused.exit_code == 2
        assert "'/nowhere': no such folder" in refused.output
    assert len(Repository.open().searches()) == before


def test_models_are_tuned_with_equal_budgets_before_they_are_compared(home: Path) -> None:  # noqa: ARG001
    arguments = ("run", "sasrec", "mf", "--smoke", "--tune", "6")
    ran = invoke(*arguments)
    assert ran.exit_code == 0, ran.output
    repository = Repository.open()
    for model in ("sasrec", "mf"):
        space = SPACES[model]
        tried = repository.trials(f"baselines-sasrec-mf-walks-tuned-6-{model}-tuning")
        assert len({trial.variant for trial in tried}) == 6, "distinct settings"
        assert tried[0].variant == space.label((0,) * space.num_bits), "the defaults come first"
        assert {trial.origin for trial in tried[5:]} <= {Origin.SOBOL, Origin.PROBABILISTIC_REPARAMETERIZATION}
        best = max(tried, key=lambda trial: (trial.mrr or 0.0, -trial.number))
        settings = repository.search("baselines-sasrec-mf-walks-tuned-6").config["baselines"][model]
        bits = next(bits for bits in space.designs() if space.label(bits) == best.variant)
        assert {key: settings[key] for key in space.settings(bits)} == space.settings(bits)
        assert best.variant.split()[0] in ran.output
    assert invoke(*arguments).exit_code == 0, "all of it is recorded"
    tuning = "baselines-sasrec-mf-walks-tuned-6-mf-tuning"
    assert len(repository.trials(tuning)) == 6
    assert {"SASRec, tuned 6", "MF, tuned 6"} <= set(as_rows("--data", "walks"))
    shown = CliRunner().invoke(app, ["show", tuning], catch_exceptions=False)
    for told in ("learning_rate=", "data walks, settings of mf, created"):
        assert told in shown.output
    for untold in ("promote", "design", "backbone"):
        assert untold not in shown.output
    for command in (["study", "show"], ["promote"], ["resume"]):
        assert CliRunner().invoke(app, [*command, tuning], catch_exceptions=False).exit_code == 2


@pytest.mark.parametrize("model", list(SPACES))
def test_every_space_has_64_settings_that_are_valid(model: BaselineName) -> None:
    space = SPACES[model]
    assert space.num_bits == 6
    base = load_config("smoke")
    for bits in space.designs():
        with_settings(base, dotted(model, bits), "test")


def test_every_model_has_a_space() -> None:
    assert set(SPACES) == set(get_args(BaselineName)) == set(TITLES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "sasrek", "--smoke"], "choose from gru4rec, sasrec"),
        (["run", "sasrec"], "give either --data NAME or --smoke"),
        (["run", "sasrec", "--smoke", "--data", "walks"], "give either --data NAME or --smoke"),
        (["run", "sasrec", "--smoke", "--user-share", "0"], "nobody is left"),
        (["run", "sasrec", "--smoke", "--set", "baselines.sasrec.dropuot=1"], "baselines.sasrec.dropout"),
        (["run", "sasrec", "--smoke", "--set", "baselines.sasrec.heads=3"], "must divide the width"),
        (["run", "mf", "--smoke", "--tune", "4", "--set", "baselines.mf.dim=8"], "leave out either --tune or --set"),
        (["run", "mf", "--smoke", "--tune", "4", "--name", "a/b"], "a/b"),
        (["compare", "--data", "nowhere"], "baselines run all --data nowhere"),
        (["compare", "--data", "walks", "--user-share", "0.5"], "nothing has been tested"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], told: str, home: Path) -> None:  # noqa: ARG001
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert told in refused.output
    assert len(refused.output.strip().splitlines()) <= 2
