"""What `show` says of a search whose winner was confirmed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from mixrec_automl.config import from_dict
from mixrec_automl.store.records import Origin, SearchState
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import writer_of

FIXED, OTHER, LUCKY = (Architecture.parse(bits) for bits in ("000", "010", "111"))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SearchWriter:
    """Of a search whose luckiest design is not the one that its confirmation will find to be the best."""
    for name in ("MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "home"))
    repository = Repository.open()
    config = from_dict({"data": {"name": "ml-100k"}, "backbone": {"layers": 1}, "search": {"trials": 12}}, "test")
    repository.create_search("demo", config.as_dict(), "aaa")
    made = writer_of(repository, "demo")
    for design, mrr in ((FIXED, 0.030), (OTHER, 0.036), (LUCKY, 0.045)):
        trained(made, design, 0, mrr, Origin.FIXED if design == FIXED else Origin.SOBOL)
    return made


def trained(writer: SearchWriter, design: Architecture, seed: int, mrr: float, origin: Origin) -> None:
    number = len(Repository.open().trials("demo"))
    writer.add_trials(number, Design(design), [seed], origin, 0.0)
    writer.start_trial(number, 1)
    writer.complete_trial(number, 1, mrr, 0.003)


def confirm(writer: SearchWriter, lucky: tuple[float, float] = (0.031, 0.030)) -> None:
    for design, scores in ((FIXED, (0.030, 0.032)), (LUCKY, lucky), (OTHER, (0.036, 0.0382))):
        for seed, mrr in enumerate(scores, start=1):
            trained(writer, design, seed, mrr, Origin.CONFIRMATION)


def show(*arguments: str) -> str:
    return CliRunner().invoke(app, ["show", "demo", *arguments], catch_exceptions=False).output


@pytest.mark.usefixtures("writer")
def test_before_the_confirmation_the_best_score_counts_and_no_interval_is_given() -> None:
    assert "best so far: trial 2, MRR 0.0450" in show()
    assert "minus the all-serial design" not in show()
    assert json.loads(show("--json"))["advantage"] is None


def test_afterwards_the_winner_is_told_with_its_corrected_advantage(writer: SearchWriter) -> None:
    confirm(writer)
    told, found = " ".join(show().split()), json.loads(show("--json"))
    assert "best so far: trial 8, MRR 0.0382" in told
    writer.set_state(SearchState.COMPLETED)
    assert "winner: trial 8, MRR 0.0382" in " ".join(show().split())
    assert "mean of 2 replicates 0.0371" in told
    assert "minus the all-serial design: +0.0061 [" in told
    assert "95% over 2 new training seeds, on the same users, corrected for the choice among 2 designs" in told
    assert told.count("confirm") >= 6, "in the table, as their origin"
    assert found["best_architecture"] == "010"
    assert found["best_mean_mrr"] == pytest.approx(0.0371)
    advantage = found["advantage"]
    assert advantage["difference"] == pytest.approx(0.0061)
    assert advantage["low"] < advantage["difference"] < advantage["high"]
    assert (advantage["level"], advantage["seeds"], advantage["compared"]) == (0.95, 2, 2)


def test_a_fixed_design_that_stays_the_best_is_said_to(writer: SearchWriter) -> None:
    for design, scores in ((FIXED, (0.040, 0.041)), (LUCKY, (0.031, 0.030))):
        for seed, mrr in enumerate(scores, start=1):
            trained(writer, design, seed, mrr, Origin.CONFIRMATION)
    assert "trained again with new seeds, no other design was better than the all-serial one" in " ".join(
        show().split()
    )
    assert json.loads(show("--json"))["advantage"] is None


def test_the_settings_of_designs_are_told_with_them(writer: SearchWriter) -> None:
    """Two designs of one architecture."""
    settings = {"model.bottleneck": 16, "training.learning_rate": 0.00123456}
    fixed, other = (Design.of(FIXED, {**settings, "model.bottleneck": width}) for width in (16, 32))
    repository = Repository.open()
    writer.set_state(SearchState.STOPPED)
    repository.create_search("other", repository.search("demo").config, "aaa")
    own = writer_of(repository, "other")
    rows = [(fixed, 0, 0.03, Origin.FIXED), (other, 0, 0.04, Origin.SOBOL)]
    confirmed = ((fixed, (0.030, 0.032)), (other, (0.041, 0.042)))
    rows += [(one, seed, mrr, Origin.CONFIRMATION) for one, pair in confirmed for seed, mrr in enumerate(pair, start=1)]
    for number, (design, seed, mrr, origin) in enumerate(rows):
        own.add_trials(number, design, [seed], origin, 0.0)
        own.start_trial(number, 1)
        own.complete_trial(number, 1, mrr, 0.003)
    told = " ".join(CliRunner().invoke(app, ["show", "other"], catch_exceptions=False).output.split())
    assert "│ bottleneck │ learning_rate │" in told.replace("┃", "│")
    assert "model.bottleneck: 32 training.learning_rate: 0.001235" in told, "below the winner"
    assert "minus the fixed design: +0.0105 [" in told
    found = json.loads(CliRunner().invoke(app, ["show", "other", "--json"], catch_exceptions=False).output)
    assert found["best_settings"] == {**settings, "model.bottleneck": 32}
    assert [trial["settings"]["model.bottleneck"] for trial in found["trials"]] == [16, 32, 16, 16, 32, 32]
    assert found["advantage"]["compared"] == 1
    assert "000 model.bottleneck=32" in CliRunner().invoke(app, ["searches"], catch_exceptions=False).output
