"""The root command, `searches`, `show` and `ui`: what they print and how they fail."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import mixrec_automl
from mixrec_automl import paths, tracking
from mixrec_automl.cli import app as app_module
from mixrec_automl.cli.app import app, main
from mixrec_automl.cli.tables import winner_table
from mixrec_automl.config import from_dict
from mixrec_automl.store.records import Origin, SearchState
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import LONG, started, writer_of
from tests.ports import free_port
from trainers.errors import UserError

HEAVY = ("ray", "torch", "ax", "mlflow", "botorch", "transformers", "pandas", "sqlalchemy")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def repository() -> Repository:
    """Two searches: `old`, without trials, and `demo` with one trial of each kind."""
    repository = Repository.open()
    config = from_dict({"data": {"name": "ml-100k"}, "backbone": {"layers": 2}, "search": {"trials": 5}}, "test")
    repository.create_search("old", config.as_dict(), "aaa")
    floors = {"popularity": 0.02, "popularity_unseen": 0.03}
    repository.create_search("demo", config.as_dict(), "bbb", floors, owner="ada")
    writer = writer_of(repository, "demo", who="ada")
    for number, (bits, mrr) in enumerate((("000-000", 0.04), ("010-111", 0.0523), ("111-111", None))):
        started(writer, number, design=Architecture.parse(bits))
        if mrr is None:
            writer.fail_trial(number, 1, "Traceback:\n  [x] = []\nValueError: loss_seq is nan")
            continue
        for epoch in (1, 2):
            writer.record_epoch(number, 1, epoch, {"validation_mrr": mrr * epoch / 2, "loss_seq": 3.0})
        writer.complete_trial(number, 1, mrr, 0.003)
    writer.add_trials(3, Design(Architecture.parse("100-000")), [7], Origin.PROBABILISTIC_REPARAMETERIZATION, 0.5)
    return repository


def end(repository: Repository, state: SearchState) -> None:
    """`demo` is over, and nobody runs it any more."""
    writer = writer_of(repository, "demo", who="ada")
    writer.set_state(state)
    writer.release()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_version() -> None:
    assert run("--version").stdout == f"mixrec-automl {mixrec_automl.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, mixrec_automl.cli.app; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_empty_database_says_how_to_start() -> None:
    assert "mixrec-automl search configs/ml-100k.yaml" in run("searches").stdout
    assert json.loads(run("searches", "--json").stdout) == []


@pytest.mark.usefixtures("repository")
def test_searches_come_newest_first() -> None:
    listed = json.loads(run("searches", "--json").stdout)
    assert [entry["name"] for entry in listed] == ["demo", "old"]
    assert listed[0] | {"created_at": "", "updated_at": ""} == {
        "name": "demo", "state": "RUNNING", "owner": "ada", "priority": 0,
        "data": "ml-100k", "trials_planned": 5, "trials_ended": 3,
        "trials_failed": 1, "trials_pruned": 0, "best_trial": 1, "best_mrr": 0.0523, "best_mean_mrr": 0.0523,
        "best_architecture": "010-111", "best_settings": {}, "created_at": "", "updated_at": "",
        "error": None, "controller": "ada@test",
        "slots_wanted": None, "slots_allotted": None, "slots_note": None,
    }  # fmt: skip
    text = run("searches").stdout
    assert text.index("demo") < text.index("old")
    assert re.search(r"demo +│ ada +│ 0 +│", text), text
    assert "3/5" in text
    assert "0.0523" in text
    assert text.count("interrupted") == 1, "`old`, which nobody runs"


def test_show_says_what_a_search_has_of_a_shared_cluster(repository: Repository) -> None:
    note = "2 of 4 slots: shares the cluster with [b] (priority 1)"
    repository.take_lease("demo", "ada@there", "ada", LONG, cluster="c").note_slots(4, 2, note)
    assert f"run by ada@there\n{note}\n" in run("show", "demo").stdout


def test_show_as_json(repository: Repository) -> None:
    shown = json.loads(run("show", "demo", "--json").stdout)
    assert (shown["name"], shown["state"], shown["fingerprint"]) == ("demo", "RUNNING", "bbb")
    assert shown["config"] == json.loads(json.dumps(repository.search("demo").config))
    keys = ("number", "architecture", "seed", "state", "attempt", "epochs", "mrr")
    assert [tuple(trial[key] for key in keys) for trial in shown["trials"]] == [
        (0, "000-000", 7, "COMPLETED", 1, 2, 0.04),
        (1, "010-111", 7, "COMPLETED", 1, 2, 0.0523),
        (2, "111-111", 7, "FAILED", 1, 0, None),
        (3, "100-000", 7, "QUEUED", 0, 0, None),
    ]
    assert shown["trials"][2]["error"].endswith("loss_seq is nan")


@pytest.mark.usefixtures("repository")
def test_show_one_trial_as_json() -> None:
    shown = json.loads(run("show", "demo", "--trial", "1", "--json").stdout)
    assert (shown["number"], shown["mrr"]) == (1, 0.0523)
    assert [(seen["epoch"], seen["metrics"]["validation_mrr"]) for seen in shown["observations"]] == [
        (1, 0.0523 / 2),
        (2, 0.0523),
    ]


def test_show_for_people(repository: Repository, home: Path) -> None:
    end(repository, SearchState.STOPPED)
    repository.note_tracking("demo", "ConnectionError: [gone]", revision=10)
    text = run("show", "demo").stdout
    for expected in (
        "search demo: STOPPED, 3 of 5 trials ended, 1 of them failed",
        "backbone smollm2-135m-instruct (first 2 layers)",
        "best so far: trial 1, MRR 0.0523 (standard error 0.0030)",
        "floors on the same users, validation MRR: popularity 0.0200 (0.0300 without seen items)",
        f"sqlite:///{home / 'mixrec.db'}",
        str(home / "runs" / "demo"),
        "mixrec-automl promote demo",
        "mixrec-automl resume demo",
        "MLflow lags 5 changes behind (ConnectionError: [gone])",
    ):
        assert expected in text
    assert "\x1b" not in text, "colours in a pipe"
    assert "…" not in text, "a pipe gets everything"


def test_pruned_trials_are_counted_apart(repository: Repository) -> None:
    started(writer := writer_of(repository, "demo", who="ada"), 4, design=Architecture.parse("100-100"))
    writer.record_epoch(4, 1, 1, {"validation_mrr": 0.01})
    writer.prune_trial(4, 1, "below the median of 7 trials at epoch 1")
    text = run("show", "demo").stdout
    assert "4 of 5 trials ended, 1 of them failed, 1 of them pruned, which saved 39 epochs" in text
    told = "pruned: below the median of 7 trials at epoch 1; ended after epoch 1 of 40"
    assert told in run("show", "demo", "--trial", "4").stdout
    shown = json.loads(run("show", "demo", "--json").stdout)
    assert [shown[f"trials_{what}"] for what in ("ended", "failed", "pruned")] == [4, 1, 1]
    assert (shown["trials"][4]["state"], shown["trials"][4]["mrr"], shown["trials"][4]["epochs"]) == ("PRUNED", None, 1)
    assert shown["epochs_saved"] == 39


def test_the_best_design_is_that_with_the_best_mean(repository: Repository) -> None:
    """Trial 4 has the highest MRR of all, trial 5 of the same design brings it below trial 1."""
    writer = writer_of(repository, "demo", who="ada")
    writer.add_trials(4, Design(Architecture.parse("001-001")), [7, 8], Origin.SOBOL, 0.5)
    told = {}
    for number, mrr in ((4, 0.06), (5, 0.04)):
        writer.start_trial(number, 1)
        writer.complete_trial(number, 1, mrr, 0.003)
        shown = json.loads(run("show", "demo", "--json").stdout)
        told[number] = (shown["best_trial"], shown["best_mean_mrr"])
    assert told == {4: (1, 0.0523), 5: (1, 0.0523)}
    writer.add_trials(6, Design(Architecture.parse("001-000")), [7, 8], Origin.SOBOL, 0.5)
    for number, mrr in ((6, 0.054), (7, 0.056)):
        writer.start_trial(number, 1)
        writer.complete_trial(number, 1, mrr, 0.003)
    shown = json.loads(run("show", "demo", "--json").stdout)
    assert (shown["best_trial"], shown["best_mrr"]) == (7, 0.056)
    assert shown["best_mean_mrr"] == pytest.approx(0.055)
    assert "best so far: trial 7, MRR 0.0560 (standard error 0.0030), mean of 2 replicates 0.0550" in " ".join(
        run("show", "demo").stdout.split()
    )


def test_a_running_search_is_not_offered_for_promotion(repository: Repository) -> None:
    text = run("show", "demo").stdout
    assert "promote" not in text
    assert "run by ada@test" in text
    assert "mixrec-automl stop demo" in text
    end(repository, SearchState.COMPLETED)
    text = run("show", "demo").stdout
    assert "promote demo" in text
    assert not any(word in text for word in ("resume", "run by", "stop demo"))


def test_a_search_whose_process_died_is_to_be_resumed(repository: Repository) -> None:
    writer_of(repository, "demo", who="ada").release()
    text = run("show", "demo").stdout
    assert "search demo: RUNNING" in text
    assert "no process runs it any more" in text
    assert "mixrec-automl resume demo" in text
    assert json.loads(run("show", "demo", "--json").stdout)["controller"] is None


def test_promotions_are_shown(repository: Repository) -> None:
    repository.add_promotion("demo", 1)
    repository.finish_promotion("demo", 0, SearchState.COMPLETED, metrics={"test_mrr": 0.0612}, model_version="3")
    assert json.loads(run("show", "demo", "--json").stdout)["promotions"][0]["metrics"] == {"test_mrr": 0.0612}
    assert "test_mrr 0.0612" in run("show", "demo").stdout


@pytest.mark.usefixtures("repository")
def test_the_traceback_of_a_failed_trial_is_printed_as_it_is() -> None:
    assert "  [x] = []\nValueError: loss_seq is nan" in run("show", "demo", "--trial", "2").stdout
    told = run("show", "demo", "--trial", "1").stdout
    assert "validation MRR ▁█" in told
    assert "loss seq" in told


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, repository: Repository) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/mlflow")
    assert repository.search("demo")
    assert "secret" not in run("show", "demo").stdout


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "dmeo"), "error: no search is named 'dmeo': did you mean 'demo'?"),
        (("show", "demo", "--trial", "9"), "error: search demo has no trial 9: it has trials 0 to 3"),
        (("show", "old", "--trial", "0"), "error: search old has no trial 0: it has none yet"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_debug_lets_the_error_through() -> None:
    with pytest.raises(UserError, match="no search"):
        run("--debug", "show", "nothing")


def test_an_unusable_database_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXREC_DATABASE_URL", "nonsense")
    result = run("searches")
    assert (result.exit_code, "no database URL" in result.stderr) == (2, True)


def test_an_error_of_the_program_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(app_module, "app", broken)
    monkeypatch.setattr(sys, "argv", ["mixrec-automl", "show", "x"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "internal error: ZeroDivisionError: division by zero" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["mixrec-automl", "--debug", "show", "x"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_the_winner_is_a_table_of_layers_by_adapters() -> None:
    printed = io.StringIO()
    Console(width=100, file=printed).print(winner_table(Design(Architecture.parse("010-101"))))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.getvalue().splitlines() if "│" in line]
    assert rows == [["1", "serial", "parallel", "serial"], ["2", "parallel", "serial", "parallel"]]


def test_ui_refuses_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("ui", "--port", str(taken.getsockname()[1]))
    assert (result.exit_code, "choose another with --port" in result.stderr) == (2, True)


def test_ui_names_a_tracking_server_that_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert "http://tracking.example:5000" in run("ui").stdout


@pytest.mark.end_to_end
def test_ui_catches_up_serves_mlflow_and_leaves_nothing_behind(repository: Repository) -> None:
    end(repository, SearchState.STOPPED)
    repository.note_tracking("demo", "MLflow was down")
    port = free_port()
    command = [sys.executable, "-m", "mixrec_automl.cli.app", "ui", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("MLflow:"))
        assert f"http://127.0.0.1:{port}" in line
        assert [run["info"]["run_name"] for run in runs_on(port, "demo")].count("trial-001") == 1
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout is not None
        process.stdout.close()
    found = repository.search("demo")
    assert (found.tracking_error, found.changes_not_tracked) == (None, 0)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
    assert tracking.artifacts_folder("demo").is_dir()
    assert paths.tracking_uri() == f"sqlite:///{paths.home() / 'mlflow.db'}"


def runs_on(port: int, experiment: str) -> Any:
    api = f"http://127.0.0.1:{port}/api/2.0/mlflow"
    with urllib.request.urlopen(f"{api}/experiments/get-by-name?experiment_name={experiment}", timeout=20) as answer:
        identifier = json.load(answer)["experiment"]["experiment_id"]
    body = json.dumps({"experiment_ids": [identifier]}).encode()
    request = urllib.request.Request(f"{api}/runs/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["runs"]
