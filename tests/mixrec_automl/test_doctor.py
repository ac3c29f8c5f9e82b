"""`mixrec-automl doctor`: what it finds, what it says to do, and that it leaves nothing behind."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mixrec_automl import doctor
from mixrec_automl.cli.app import app
from mixrec_automl.cluster import inspection
from mixrec_automl.cluster.inspection import ClusterFound
from mixrec_automl.doctor import CHECKS, Finding, Level, examine
from mixrec_automl.store import schema
from mixrec_automl.store.repository import Repository
from tests.ports import free_port


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)


def found_by(monkeypatch: pytest.MonkeyPatch, what: str) -> Finding:
    """What that check comes to, alone."""
    monkeypatch.setattr(doctor, "CHECKS", {what: CHECKS[what]})
    [finding] = examine()
    return finding


@pytest.mark.end_to_end
def test_all_is_well_on_a_fresh_machine_and_nothing_is_left(home: Path) -> None:
    ran = run("--json")
    found: list[dict[str, Any]] = json.loads(ran.output)
    assert [one["what"] for one in found] == list(CHECKS)
    assert {one["level"] for one in found} <= {"ok", "warning"}, found
    assert ran.exit_code == 0
    assert "CPU" in next(one["found"] for one in found if one["what"] == "Ray")
    assert {path.name.partition("-")[0] for path in home.iterdir()} <= {"mixrec.db", "mlflow.db"}


def test_services_that_do_not_answer_are_a_line_each_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead_port = free_port()
    monkeypatch.setenv("MIXREC_DATABASE_URL", f"postgresql+psycopg://ada:secret@127.0.0.1:{dead_port}/mixrec")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{dead_port}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{dead_port}")
    monkeypatch.setenv("COLUMNS", "1000")
    ran = run()
    assert ran.exit_code == 1
    lines = ran.output.splitlines()
    for what, variable in (
        ("database", "MIXREC_DATABASE_URL"),
        ("MLflow", "MLFLOW_TRACKING_URI"),
        ("Ray", "RAY_ADDRESS"),
    ):
        [position] = [number for number, line in enumerate(lines) if line.startswith(what)]
        assert "broken" in lines[position]
        assert str(dead_port) in lines[position]
        assert lines[position + 1].strip().startswith(f"-> export {variable}=")
    assert "secret" not in ran.output


def test_a_home_folder_that_cannot_be_written_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "file" / "home"))
    finding = found_by(monkeypatch, "home folder")
    assert (finding.level, finding.remedy[:18]) == (Level.BROKEN, "export MIXREC_HOME")
    assert str(tmp_path / "file") in finding.found
    assert found_by(monkeypatch, "Ray").level is Level.OK, "and nothing else"


def test_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 10**18)
    assert found_by(monkeypatch, "home folder").level is Level.WARNING


def test_packages_that_are_missing_or_of_another_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["torch<2,>=1", "no-such-package", "rich>=1", "absent-too; extra == 'dev'", "absent; python_version < '3'"]
    monkeypatch.setattr(doctor, "requires", lambda _: needed)
    finding = found_by(monkeypatch, "packages")
    assert finding.level is Level.BROKEN
    wrong = finding.found.split("; ")
    assert len(wrong) == 2
    assert wrong[0].startswith("torch 2.")
    assert wrong[1] == "no-such-package is missing"
    assert finding.remedy == "make install"


def test_what_is_installed_here_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_by(monkeypatch, "packages").level is Level.OK


def test_an_interrupted_search_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository.open()
    repository.create_search("mine", {}, "")
    repository.close()
    finding = found_by(monkeypatch, "database")
    assert (finding.level, finding.remedy) == (Level.WARNING, "mixrec-automl show mine")
    assert "interrupted: mine" in finding.found


@pytest.mark.parametrize(
    ("needed", "told", "remedy"),
    [("9999", "older than 9999", "`mixrec-automl database upgrade`"), (None, "does not know", "a newer mixrec-automl")],
)
def test_tables_of_another_revision_are_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, home: Path, needed: str | None, told: str, remedy: str
) -> None:
    Repository.open().close()
    assert f"revision {schema.HEAD}, 0 searches" in found_by(monkeypatch, "database").found
    if needed is None:
        with sqlite3.connect(home / "mixrec.db") as raw:
            raw.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0815'")
    else:
        monkeypatch.setattr(schema, "HEAD", needed)
    finding = found_by(monkeypatch, "database")
    assert finding.level is Level.BROKEN
    assert told in finding.found
    assert remedy in finding.remedy


def test_damaged_data_is_to_be_prepared_anew(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "data" / "shop").mkdir(parents=True)
    finding = found_by(monkeypatch, "data")
    assert (finding.level, finding.remedy) == (Level.WARNING, "mixrec-automl data prepare shop")


@pytest.mark.parametrize(
    ("database", "without_home", "told", "remedy"),
    [
        ("sqlite:////tmp/mixrec.db", (), "SQLite serves one machine alone", "export MIXREC_DATABASE_URL="),
        ("postgresql+psycopg://host/mixrec", ("10.0.0.7",), "on 10.0.0.7", "export MIXREC_HOME="),
    ],
)
def test_a_cluster_of_several_nodes_needs_what_all_of_them_reach(
    monkeypatch: pytest.MonkeyPatch, database: str, without_home: tuple[str, ...], told: str, remedy: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("MIXREC_DATABASE_URL", database)
    monkeypatch.setattr(inspection, "inspect_cluster", lambda _: ClusterFound(2, 32, 4, without_home))
    finding = found_by(monkeypatch, "Ray")
    assert finding.level is Level.BROKEN
    assert "2 nodes: 32 CPUs, 4 GPUs" in finding.found
    assert told in finding.found
    assert finding.remedy.startswith(remedy)
