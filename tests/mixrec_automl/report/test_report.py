"""A report of a search with trials of every kind."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from mixrec_automl.config import load_config
from mixrec_automl.report.advice import advice
from mixrec_automl.report.material import Material
from mixrec_automl.report.of_designs import all_designs, winner
from mixrec_automl.report.page import FIGURES, _with_code, write_report
from mixrec_automl.report.style import DARK, PAPER
from mixrec_automl.store.records import Origin, SearchState
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import writer_of
from trainers.errors import UserError

NAME = "first"
COMPLETED = 9
EVERY_FIGURE = {
    "best-so-far", "winner", "comparison", "designs", "bit-effects", "pair-effects", "calibration", "next-design",
    "learning-curves", "timeline",
}  # fmt: skip


def record(repository: Repository, *, is_confirmed: bool = True) -> None:
    """A search whose second bit is worth something, with a trial that failed and one that was pruned."""
    config = load_config("smoke", ["search.trials=13", f"search.confirmation_share={0.3 if is_confirmed else 0}"])
    repository.create_search(NAME, config.as_dict(), "fingerprint", {"popularity": 0.01})
    writer = writer_of(repository, NAME)

    def add(number: int, bits: str, origin: Origin, seed: int = 0) -> float:
        writer.add_trials(number, Design(Architecture.parse(bits)), [seed], origin, 0.25)
        writer.start_trial(number, 1)
        mrr = 0.05 + 0.01 * (bits[1] == "1") + 0.001 * ((number * 7 + seed) % 3)
        for epoch in (1, 2):
            metrics = {"validation_mrr": mrr * (0.6 if epoch == 1 else 1), "seconds": 1.0}
            writer.record_epoch(number, 1, epoch, metrics)
        return mrr

    for number in range(COMPLETED):
        bits = f"{number:03b}"[-3:] + f"-{number % 2}{number // 2 % 2}0-000-000"
        origin = Origin.SOBOL if number else Origin.FIXED
        writer.complete_trial(number, 1, add(number, bits if number else "000-000-000-000", origin), 0.004)
    add(COMPLETED, "111-111-111-111", Origin.SOBOL)
    writer.fail_trial(COMPLETED, 1, "ValueError: <b>no</b>")
    add(COMPLETED + 1, "101-101-101-101", Origin.PROBABILISTIC_REPARAMETERIZATION)
    writer.prune_trial(COMPLETED + 1, 1, "below the median")
    if is_confirmed:
        for place, (bits, seed) in enumerate((b, s) for b in ("010-000-000-000", "000-000-000-000") for s in (8, 9)):
            number = COMPLETED + 2 + place
            writer.complete_trial(number, 1, add(number, bits, Origin.CONFIRMATION, seed), 0.004)
    writer.set_state(SearchState.COMPLETED)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")


class Reader(HTMLParser):
    """What a browser would find."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.labels: list[str] = []
        self.tags: Counter[str] = Counter()
        self.depth = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found: dict[str, Any] = dict(attributes)
        self.tags[tag] += 1
        self.ids += [found["id"]] if "id" in found else []
        self.targets += [value for key, value in attributes if key in ("href", "src", "xlink:href") and value]
        self.labels += [found["aria-label"]] if tag == "svg" else []


def read(page: Path) -> tuple[str, Reader]:
    text, reader = page.read_text(encoding="utf-8"), Reader()
    reader.feed(text)
    return text, reader


def test_one_page_holds_everything_and_needs_no_network(repository: Repository, tmp_path: Path) -> None:
    record(repository)
    page, *_ = write_report(Material.read(repository, NAME), tmp_path / "out")
    text, found = read(page)
    for kind in ("svg", "png"):
        assert {file.stem for file in (tmp_path / "out" / FIGURES).glob(f"*.{kind}")} == EVERY_FIGURE
    assert len(found.labels) == found.tags["svg"] == len(EVERY_FIGURE)
    assert found.tags["script"] == found.tags["link"] == found.tags["img"] == 0
    assert all(target.startswith("#") and target[1:] in found.ids for target in found.targets)
    assert len(found.ids) == len(set(found.ids)), "figures do not find each other's parts"
    assert "url(http" not in text
    assert "@import" not in text


def test_figures_follow_the_background(repository: Repository, tmp_path: Path) -> None:
    record(repository)
    text, _ = read(write_report(Material.read(repository, NAME), tmp_path / "out")[0])
    drawn = text[text.index("<main>") :]
    assert not [colour for colour in DARK if colour in drawn], "each colour is a variable"
    assert "prefers-color-scheme: dark" in text
    alone = (tmp_path / "out" / FIGURES / "winner.svg").read_text()
    assert PAPER in alone, "the file has colours of its own"


def test_what_it_says_is_what_is_recorded(repository: Repository, tmp_path: Path) -> None:
    record(repository)
    material = Material.read(repository, NAME)
    text, _ = read(write_report(material, tmp_path / "out")[0])
    assert material.best is not None
    assert f"{material.best.mrr:.4f}" in text
    assert "1 failed, 1 pruned" in text
    assert text.count("<tr") == 1 + len(material.trials)
    assert material.explanation is not None
    assert max(material.explanation.effects, key=lambda effect: effect.mean).bits == (1,), "the bit that was put in"


def test_a_name_is_no_html(repository: Repository, tmp_path: Path) -> None:
    record(repository)
    material = Material.read(repository, NAME)
    named = replace(material, search=replace(material.search, name="<script>alert(1)</script>"))
    text, found = read(write_report(named, tmp_path / "out")[0])
    assert found.tags["script"] == 0
    assert "&lt;script&gt;" in text
    assert _with_code("set `a<b` & go") == "set <code>a&lt;b</code> &amp; go"


@pytest.mark.parametrize(
    ("is_confirmed", "state", "expected"),
    [
        (True, SearchState.COMPLETED, "mixrec-automl promote first"),
        (False, SearchState.COMPLETED, "Keep a share of the budget for a confirmation."),
        (False, SearchState.STOPPED, "mixrec-automl resume first"),
        (True, SearchState.COMPLETED, "Give trainings more epochs."),
        (True, SearchState.COMPLETED, "Look at what failed."),
    ],
)
def test_what_to_try_next_follows_from_the_data(
    repository: Repository, is_confirmed: bool, state: SearchState, expected: str
) -> None:
    record(repository, is_confirmed=is_confirmed)
    material = Material.read(repository, NAME)
    if expected.startswith("Look"):
        material = replace(material, trials=material.trials[COMPLETED - 1 :])
    found = advice(replace(material, search=replace(material.search, state=state)))
    assert expected in {text for one in found for text in (one.what, one.command)}


def test_the_command_writes_it_and_mlflow_keeps_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "home"))
    for name in ("MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with closing(Repository.open()) as repository:
        record(repository)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "private.txt").write_text("nobody else's")
    done = CliRunner().invoke(app, ["report", NAME, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.output.splitlines() == [str(tmp_path / "out" / "report.html")]
    kept = [file for file in (tmp_path / "home" / "runs").rglob("*") if file.is_file() and "report" in file.parts]
    assert {file.stem for file in kept} == {"report", *EVERY_FIGURE}
    refused = CliRunner().invoke(app, ["report", "nobody"])
    assert refused.exit_code == 2


def test_a_search_that_has_only_begun_has_a_page(repository: Repository, tmp_path: Path) -> None:
    config = load_config("smoke")
    repository.create_search(NAME, config.as_dict(), "fingerprint", {})
    with pytest.raises(UserError, match="has no trial yet"):
        write_report(Material.read(repository, NAME), tmp_path / "out")
    writer_of(repository, NAME).add_trials(0, Design(Architecture.parse("000-000-000-000")), [0], Origin.FIXED, 0.1)
    text, found = read(write_report(Material.read(repository, NAME), tmp_path / "out")[0])
    assert found.tags["svg"] == 0
    assert "No trial is completed yet" in text
    assert re.search(r"0 of 2", text)


def test_the_winner_is_told_by_all_its_trainings(repository: Repository, tmp_path: Path) -> None:
    """The best of several is chosen by luck."""
    record(repository)
    material = Material.read(repository, NAME)
    of_best = [trial.mrr or 0 for trial in material.trials[-4:] if trial.design == material.best.design]  # type: ignore[union-attr]
    assert len(of_best) == 2
    assert min(of_best) < max(of_best)
    mean = sum(of_best) / 2
    text, _ = read(write_report(material, tmp_path / "out")[0])
    assert f"a validation MRR of {mean:.4f}, the mean of 2 trainings;" in text
    assert f"(mean of 2 trainings of the design {mean:.4f})" in text


def test_only_the_promotion_of_the_winner_is_its(repository: Repository, tmp_path: Path) -> None:
    record(repository)
    metrics = {f"test_mrr_minus_popularity{end}": 0.1 for end in ("", "_low", "_high")}

    def promoted(trial: int, version: str) -> str:
        number = repository.add_promotion(NAME, trial).number
        repository.finish_promotion(NAME, number, SearchState.COMPLETED, metrics=metrics, model_version=version)
        material = Material.read(repository, NAME)
        return read(write_report(material, tmp_path / version)[0])[0]

    of_another = promoted(0, "mixrec-a/1")
    assert "mixrec-a/1" not in of_another
    assert "the promoted model" not in of_another
    assert "Train the winner on all users" in of_another
    of_winner = promoted(COMPLETED + 2, "mixrec-a/2")
    assert "mixrec-a/2" in of_winner
    assert "Over popularity: the promoted model" in of_winner
    assert "Train the winner on all users" not in of_winner


def test_designs_of_other_depths_are_not_put_into_one_map(repository: Repository) -> None:
    config = load_config("smoke", ["search.trials=2", "search.confirmation_share=0"])
    repository.create_search(NAME, config.as_dict(), "fingerprint", {})
    writer = writer_of(repository, NAME)
    for number, bits in enumerate(("000-000", "000-000-000-000")):
        writer.add_trials(number, Design(Architecture.parse(bits)), [0], Origin.SOBOL, 0.25)
        writer.start_trial(number, 1)
        writer.complete_trial(number, 1, 0.1 + number, 0.01)
    material = Material.read(repository, NAME)
    assert all_designs(material) is None
    assert winner(material) is not None


def test_more_users_are_advised_only_where_there_are_more(repository: Repository) -> None:
    record(repository)
    material = Material.read(repository, NAME)
    completed = [trial for trial in material.trials if trial.mrr is not None]
    noise = {trial.number: replace(trial, mrr=0.05 + 0.02 * (trial.number % 2)) for trial in completed}
    noisy = replace(material, trials=tuple(noise.get(trial.number, trial) for trial in material.trials))
    for share, remedy in ((0.5, "raise `search.user_share` or `training.epochs`"), (1.0, "raise `training.epochs`")):
        config = replace(noisy.config, search=replace(noisy.config.search, user_share=share))
        told = " ".join(one.why for one in advice(replace(noisy, config=config)))
        assert remedy in told
        assert ("user_share" in told) is (share < 1)
