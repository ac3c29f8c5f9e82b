"""Every study at --smoke, in threads: it runs, is recorded, resumes, and its table says what its ranks say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from mixrec_automl.cli.study import app as commands
from mixrec_automl.cluster.study_training import read_test_ranks
from mixrec_automl.config import load_config
from mixrec_automl.presets import preset_names
from mixrec_automl.store.records import Search, SearchState, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies.catalogue import STUDIES, find_study
from mixrec_automl.studies.paper import TABLE_1, TABLE_2
from mixrec_automl.studies.run import run_study, search_name
from mixrec_automl.studies.study import Study, plan_study, training_seeds
from search_spaces.architecture import Architecture
from trainers.errors import UserError
from trainers.metrics import per_user
from trainers.statistics import holm, paired_difference

NAMES = [study.name for study in STUDIES]


def smoke(study: Study, *, seeds: int = 1, name: str | None = None, **changes: str) -> Search:
    base = load_config("smoke", [f"{key}={value}" for key, value in changes.items()])
    name = name or f"study-{study.name}-walks"
    return run_study(study, base, range(seeds), name, Repository.open(), Console(quiet=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_study_runs(name: str, home: Path) -> None:
    study = find_study(name)
    assert smoke(study).state is SearchState.COMPLETED
    recorded = f"study-{name}-walks"
    trials = Repository.open().trials(recorded)
    plan = plan_study(study, load_config("smoke"), [0], 4, Architecture.parse("000-000-000-000"))
    assert [trial.variant for trial in trials] == list(plan.configs)
    assert name != "replacement" or list(plan.left_out) == ["r = 6"], "of four layers"
    assert all(trial.state is TrialState.COMPLETED for trial in trials)
    for trial in trials:
        assert {"test_mrr", "test_unseen_mrr"} <= set(trial.metrics)
        left = {file.name for file in (home / "runs" / recorded / "trials" / str(trial.number)).iterdir()}
        kept = {"test-ranks.parquet", "test-ranks-unseen.parquet"}
        assert left == kept | ({"package"} if trial.variant in plan.baselines else set()), "of MixRec no weights"


def test_a_study_is_shown_with_slices_and_a_plot(home: Path) -> None:
    smoke(find_study("cf-model"))
    arguments = ["study", "show", "study-cf-model-walks", "--slices", "--exclude-seen"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    for told in ("NCF", "MF", "popularity", "MRR minus NCF", "seen items left out", "history up to 4", "tail target"):
        assert told in shown.output
    assert (home / "runs" / "study-cf-model-walks" / "study.png").stat().st_size > 1000


def test_a_study_is_among_the_searches_and_says_what_to_type(home: Path) -> None:  # noqa: ARG001
    """A study has no winner to promote, and `resume` is told how it goes on."""
    smoke(find_study("cf-model"))
    shown = CliRunner().invoke(app, ["show", "study-cf-model-walks"], catch_exceptions=False)
    assert "mixrec-automl study show study-cf-model-walks" in shown.output
    assert "NCF" in shown.output
    assert "promote" not in shown.output
    for command in ("promote", "resume"):
        refused = CliRunner().invoke(app, [command, "study-cf-model-walks"], catch_exceptions=False)
        assert refused.exit_code == 2
        assert "is a study" in refused.output
    both = ["study", "show", "study-cf-model-walks", "--json", "--plot", "x.png"]
    refused = CliRunner().invoke(app, both, catch_exceptions=False)
    assert (refused.exit_code, "--json prints and --plot draws" in refused.output) == (2, True)


def test_what_is_recorded_is_trained_once_and_other_settings_are_refused(home: Path) -> None:  # noqa: ARG001
    study = find_study("cf-model")
    smoke(study)
    before = Repository.open().trials("study-cf-model-walks")
    smoke(study)
    assert Repository.open().trials("study-cf-model-walks") == before
    smoke(study, **{"search.pruning.rule": "median"})
    recorded = Repository.open().search("study-cf-model-walks").config
    assert recorded["search"]["pruning"]["rule"] == "none", "a study never prunes"
    with pytest.raises(UserError, match=r"other settings \(training.learning_rate\): choose another --name"):
        smoke(study, **{"training.learning_rate": "0.001"})


def test_the_winner_of_its_search_is_what_a_study_trains(home: Path) -> None:  # noqa: ARG001
    smoke(find_study("ablation"))
    repository, name = Repository.open(), "study-ablation-walks"
    searched = repository.trials(search_name(name))
    best = max(searched, key=lambda trial: trial.mrr or 0.0)
    (trained,) = [trial for trial in repository.trials(name) if trial.variant == "MixRec"]
    assert trained.architecture == best.architecture


def test_the_table_is_what_the_ranks_say(home: Path) -> None:
    """Two seeds, one cell missing: values over the seeds that there are, differences over those that both have."""
    study = find_study("moe-control")
    smoke(study, seeds=2, name="two")
    shown = CliRunner().invoke(app, ["study", "show", "two", "--json"], catch_exceptions=False)
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    assert list(rows) == ["context", "causal", "causal+columns", "popularity", "repeat-last", "item-knn", "markov"]
    folders = {
        (trial.variant, trial.seed): home / "runs" / "two" / "trials" / str(trial.number)
        for trial in Repository.open().trials("two")
    }
    assert sorted(folders) == sorted((variant.name, seed) for variant in study.variants for seed in (0, 1))
    values = {key: per_user(read_test_ranks(folder, exclude_seen=False)) for key, folder in folders.items()}

    def mean(name: str, metric: str) -> np.ndarray:
        return (values[name, 0][metric] + values[name, 1][metric]) / 2

    for name in ("context", "causal"):
        assert rows[name]["seeds"] == [0, 1]
        assert rows[name]["metrics"]["mrr"] == pytest.approx(mean(name, "mrr").mean())
        each = [values[name, seed]["ndcg_at_10"].mean() for seed in (0, 1)]
        assert rows[name]["spread"]["ndcg_at_10"] == pytest.approx(np.std(each, ddof=1))
    expected = paired_difference(mean("causal", "mrr"), mean("context", "mrr"), seed=0)
    assert rows["causal"]["differences"]["mrr"]["low"] == pytest.approx(expected.low)
    assert rows["context"]["differences"] == {}
    plain, adjusted = [], []
    for row in rows.values():
        for metric, difference in row["differences"].items():
            plain.append(difference["permutation_p"])
            adjusted.append(row["adjusted_p"][metric])
    assert len(plain) == 6 * 3
    assert adjusted == pytest.approx(holm(plain))
    of_slices = [rows["causal"]["by_slice"][name] for name in rows["causal"]["by_slice"] if name.startswith("history")]
    total = sum(one["users"] * one["mrr"] for one in of_slices)
    assert total / 60 == pytest.approx(rows["causal"]["metrics"]["mrr"])


@pytest.mark.parametrize("study", STUDIES, ids=NAMES)
def test_every_variant_is_a_valid_configuration(study: Study) -> None:
    searched = Architecture.parse("-".join(["010"] * 12))
    base = load_config("scientific-small", ["backbone.layers=12"])
    plan = plan_study(study, base, range(2), 12, searched)
    assert set(plan.left_out.values()) <= {"the configuration is so anyway"}
    assert not plan.left_out or study.name == "options"
    trained = [variant.name for variant in study.variants if variant.name not in plan.left_out]
    assert len({variant.name for variant in study.variants}) == len(study.variants)
    distinct = {
        (json.dumps(one.as_dict()), str(plan.architectures[name]), plan.baselines.get(name))
        for name, one in plan.configs.items()
    }
    assert len(distinct) == len(trained), "no two variants are the same"
    assert [(cell.variant, cell.seed) for cell in plan.cells] == [(name, seed) for seed in (0, 1) for name in trained]
    assert all(config.search.user_share == 1 for config in plan.configs.values())


def test_the_seed_of_the_search_is_none_of_the_studys() -> None:
    assert training_seeds(load_config("smoke"), 3) == (1, 2, 3)
    assert training_seeds(load_config("smoke", ["search.seed=2"]), 3) == (1, 3, 4)


def test_what_a_backbone_cannot_have_is_left_out() -> None:
    three = load_config("smoke", ["backbone.layers=3"])
    plan = plan_study(find_study("replacement"), three, [0], 3)
    assert list(plan.configs) == ["r = 1", "r = 2", "r = 3"]
    assert "the backbone has 3 layers" in plan.left_out["r = 6"]
    assert [len(plan.architectures[name].layers) for name in plan.configs] == [3, 1, 1]
    impossible = replace(find_study("replacement"), reference="r = 6")
    with pytest.raises(UserError, match="cannot run"):
        plan_study(impossible, three, [0], 3)


def test_mistakes_are_told_in_one_line(home: Path) -> None:  # noqa: ARG001
    for arguments, told in (
        (["run", "ablatoin"], "did you mean 'ablation'"),
        (["run", "ablation", "--data", "nowhere"], "no preset 'nowhere'"),
        (["run", "ablation", "--smoke", "--data", "walks"], "--smoke brings its own data"),
        (["run", "main", "--smoke", "--without", "MixRec"], "MixRec cannot be left out"),
        (["run", "main", "--smoke", "--without", "P6"], "no variant 'P6': choose from MixRec"),
        (["show", "nothing"], "no search is named"),
    ):
        with pytest.raises(UserError, match=told):
            CliRunner().invoke(commands, arguments, catch_exceptions=False)
    listed = json.loads(CliRunner().invoke(app, ["study", "list", "--json"], catch_exceptions=False).stdout)
    assert [study["name"] for study in listed] == NAMES
    main = find_study("main")
    fewer = main.without(["RecFormer", "P5"])
    left_out = [one.name for one in main.variants if one not in fewer.variants]
    assert left_out == ["P5", "RecFormer"]


def test_presets_hold_the_papers_table_3() -> None:
    assert set(TABLE_1) == set(TABLE_2) <= set(preset_names())
    for name in TABLE_1:
        config = load_config(name)
        assert (config.backbone.name, config.backbone.layers) == ("facebook/opt-125m", None)
        assert (config.training.epochs, config.training.learning_rate, config.model.bottleneck) == (40, 5e-5, 64)
        assert (config.search.trials, config.data.name) == (30, name)
    pantry = load_config("pantry")
    assert (pantry.training.batch_size, pantry.search.user_share) == (8, 0.2)
    weights = pantry.training.lambda_align, pantry.training.lambda_contrastive, pantry.training.lambda_collaborative
    assert weights == (0.2, 1e-6, 0.1)
