"""An MLflow server that asks for user and password, and answers to one host name: used, or refused in one line."""

from __future__ import annotations

import importlib.util
import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from mixrec_automl import doctor
from mixrec_automl.cli.app import app
from mixrec_automl.doctor import CHECKS, Level, examine
from mixrec_automl.full_training import FullTraining
from mixrec_automl.mlflow_model_run import ModelRun, run_of_promotion
from mixrec_automl.registry import Registry, registered_name
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import Trial
from mixrec_automl.store.repository import Repository
from tests.conftest import REQUIRED
from tests.end_to_end.drive import NAME
from tests.end_to_end.stage import Stage, plan
from tests.end_to_end.test_secrets import in_files, leaks
from tests.mixrec_automl.champions import crown
from tests.mixrec_automl.store.writing import started, writer_of
from tests.mlflow_server import ADMIN, MlflowServer
from tests.trainers.tiny_package import make_package
from trainers.config import DataConfig
from trainers.errors import UserError

from mlflow.tracking import MlflowClient  # isort: skip

pytestmark = pytest.mark.end_to_end

PASSWORD, WRONG, READERS = "pl4nted-admin-password", "pl4nted-wrong-password", "pl4nted-reader-password"
SECRETS = [PASSWORD, WRONG, READERS, "pl4nted"]
MODEL = registered_name("shop")
NOT_THIS_PASSWORD = (
    "MLflow's server does not take this user and password: "
    "export MLFLOW_TRACKING_USERNAME=... and MLFLOW_TRACKING_PASSWORD"
)
NOT_THIS_HOST = (
    "MLflow's server does not answer to the host name in MLFLOW_TRACKING_URI: "
    "start it with --allowed-hosts=HOST:PORT, or export MLFLOW_TRACKING_URI=... with one that it allows"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    if importlib.util.find_spec("flask_wtf") is None:
        missing = "no Flask-WTF, which mlflow[auth] brings (make install sets it up)"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{missing}; {REQUIRED} says that it must be there")
        pytest.skip(missing)
    made = MlflowServer(tmp_path_factory.mktemp("server"), password=PASSWORD)
    made.start()
    yield made
    made.kill()


def credentials(password: str, user: str = ADMIN) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def be(monkeypatch: pytest.MonkeyPatch, password: str, user: str = ADMIN) -> None:
    for name, value in credentials(password, user).items():
        monkeypatch.setenv(name, value)


def run(*arguments: str) -> str:
    """What a command prints."""
    ran = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_a_search_goes_on_without_it_and_mlflow_catches_up_with_the_right_password(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "home", tracking_uri=server.uri, environment=credentials(WRONG))
    with stage.controller(plan(trials=2)) as controller:
        assert controller.finish() == 0, controller.output
    said = " ".join(controller.output.split())
    assert f"MLflow lags behind; the search goes on and MLflow is tried again ({NOT_THIS_PASSWORD})" in said
    for name, value in stage.variables.items():
        monkeypatch.setenv(name, value)
    as_json = run("show", NAME, "--json")
    assert json.loads(as_json)["tracking_error"] == NOT_THIS_PASSWORD
    assert json.loads(as_json)["state"] == "COMPLETED"
    shown = run("show", NAME)
    assert f"({NOT_THIS_PASSWORD})" in " ".join(shown.split())
    be(monkeypatch, PASSWORD)
    caught_up = run("ui")
    assert stage.search().changes_not_tracked == 0
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(NAME)
    runs = client.search_runs([experiment.experiment_id])
    assert len([run for run in runs if "mixrec.trial" in run.data.tags]) == 2
    everything = controller.output + as_json + shown + caught_up
    assert leaks("said", everything, SECRETS) + in_files(stage.home, SECRETS) == []


def promotion_run(folder: Path, monkeypatch: pytest.MonkeyPatch, uri: str, search: str) -> ModelRun:
    """Of the one trial of a search."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MIXREC_HOME", str(folder))
    with closing(Repository.open(f"sqlite:///{folder / 'mixrec.db'}")) as repository:
        repository.create_search(search, {"data": {"name": "shop"}}, "fingerprint")
        writer = writer_of(repository, search)
        started(writer, 0)
        writer.complete_trial(0, 1, 0.5, 0.01)
        (trial,) = repository.trials(search)
        return run_of_promotion(repository, repository.add_promotion(search, 0), training_of(trial, folder))


def training_of(trial: Trial, folder: Path) -> FullTraining:
    config = SearchConfig(data=DataConfig(name="shop"))
    return FullTraining("trial-0", trial.design, trial.seed, config, folder, "fresh weights")


def test_a_promotion_is_shown_and_registered(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files pass through the server, which asks for the password there as well."""
    be(monkeypatch, PASSWORD)
    run = promotion_run(tmp_path, monkeypatch, server.uri, "promoted")
    run.log({"validation_mrr": 0.5}, 1)
    (tmp_path / "ranks.txt").write_text("1 2 3")
    run.keep(tmp_path / "ranks.txt")
    package = make_package(tmp_path / "made").package
    registry = Registry(server.uri)
    version = registry.register(MODEL, package, run.id, ["i1", "i2"], "data")
    registry.describe(version, {"mixrec.gate": "first"})
    crown(registry, version)
    run.finish()
    assert registry.champion(MODEL) == version
    assert [one.path for one in MlflowClient(server.uri).list_artifacts(run.id)] == ["ranks.txt"]
    fetched = registry.fetch(registry.find(MODEL), tmp_path / "fetched")
    assert contents(fetched) == contents(package)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("host", "password", "told"), [("127.0.0.1", WRONG, NOT_THIS_PASSWORD), ("localhost", PASSWORD, NOT_THIS_HOST)]
)
def test_what_is_refused_is_one_line_with_the_remedy(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, password: str, told: str
) -> None:
    uri = f"http://{host}:{server.port}"
    be(monkeypatch, password)
    with pytest.raises(UserError) as asked:  # where `promote` and `rollback` begin
        Registry(uri).champion(MODEL)
    assert str(asked.value) == told
    with pytest.raises(UserError) as opened:
        promotion_run(tmp_path, monkeypatch, uri, "refused")
    assert str(opened.value) == told
    monkeypatch.setattr(doctor, "CHECKS", {"MLflow": CHECKS["MLflow"]})
    (finding,) = examine()
    assert finding.level is Level.BROKEN
    assert (f"{uri}: {told}") == f"{finding.found}: {finding.remedy}"


def test_who_may_only_read_is_told_so(server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a training whose result could not be kept."""
    be(monkeypatch, PASSWORD)
    promotion_run(tmp_path, monkeypatch, server.uri, "ours")
    asked = Request(
        f"{server.uri}/api/2.0/mlflow/users/create",
        json.dumps({"username": "reader", "password": READERS}).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Basic {b64encode(f'{ADMIN}:{PASSWORD}'.encode()).decode()}",
        },
    )
    urlopen(asked, timeout=30).close()
    be(monkeypatch, READERS, "reader")
    with closing(Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")) as repository:
        (trial,) = repository.trials("ours")
        with pytest.raises(UserError, match=r"does not allow this user to do that: export .* with the permission EDIT"):
            run_of_promotion(repository, repository.add_promotion("ours", 0), training_of(trial, tmp_path))


def test_no_password_is_kept_by_the_server(server: MlflowServer) -> None:
    """After all that stands above."""
    assert any(file.stat().st_size for file in server.folder.rglob("log")), "the check sees its files"
    assert in_files(server.folder, SECRETS) == []
