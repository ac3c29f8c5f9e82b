"""The registry on a real MLflow with SQLite: versions, aliases, every way to name a model, and no pickle in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors import safe_open

from mixrec_automl.registry import ModelVersion, Registry, registered_name
from tests.mixrec_automl.champions import crown
from tests.mlflow_server import MlflowServer
from tests.trainers.tiny_package import make_package
from trainers.errors import UserError
from trainers.package import read_package
from trainers.recommend import Query, recommend_each

import mlflow  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip

NAME = registered_name("shop")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def package(root: Path) -> Path:
    return make_package(root / "made").package


@pytest.fixture(scope="module")
def uri(root: Path) -> str:
    return f"sqlite:///{root / 'home' / 'mlflow.db'}"


def new_run(uri: str, root: Path) -> str:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("s")
    identifier = (
        experiment.experiment_id if experiment else client.create_experiment("s", (root / "artifacts").as_uri())
    )
    return str(client.create_run(identifier).info.run_id)


@pytest.fixture(scope="module")
def registry(uri: str, root: Path, package: Path) -> Registry:
    """Two versions, the first of them champion."""
    made = Registry(uri)
    assert made.champion(NAME) is None, "not even the name is there"
    versions = [made.register(NAME, package, new_run(uri, root), ["i1", "i2"], f"data-{at}") for at in (1, 2)]
    assert versions == [ModelVersion(NAME, "1", "data-1"), ModelVersion(NAME, "2", "data-2")]
    assert made.champion(NAME) is None, "registering moves no alias"
    assert made.replace_champion(None, versions[0])
    return made


def files_of(registry: Registry, version: str) -> dict[str, bytes]:
    """Content by relative path of what `fetch` gives."""
    folder = registry.fetch(registry.find(f"{NAME}/{version}"), Path("/nonexistent"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_champion_is_the_version_of_the_alias(registry: Registry, uri: str) -> None:
    first, second = ModelVersion(NAME, "1", "data-1"), ModelVersion(NAME, "2", "data-2")
    assert registry.champion(NAME) == first
    assert Registry(uri).champion(NAME) == first, "stored, not remembered"
    crown(registry, second)
    assert registry.champion(NAME) == second
    crown(registry, first)


def test_a_package_comes_back_file_by_file(registry: Registry, package: Path) -> None:
    there = {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*") if path.is_file()}
    assert files_of(registry, "1") == there


@pytest.mark.parametrize(
    ("model", "version"),
    [
        (NAME, "1"),
        (f"{NAME}@champion", "1"),
        (f"{NAME}/1", "1"),
        (f"{NAME}/2", "2"),
        (f"models:/{NAME}", "1"),
        (f"models:/{NAME}@champion", "1"),
        (f"models:/{NAME}/2", "2"),
    ],
)
def test_every_way_to_name_a_model(registry: Registry, uri: str, model: str, version: str, tmp_path: Path) -> None:
    folder = registry.fetch(registry.find(model), tmp_path)
    place = MlflowClient(tracking_uri=uri).get_model_version_download_uri(NAME, version)
    assert folder.as_uri() == f"{place}/artifacts/package", "files of a local registry are used in place"
    assert list(tmp_path.iterdir()) == [], "and not copied"
    assert (folder / "model.json").is_file()


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("mixrec-shoe", "no model 'mixrec-shoe'; registered are mixrec-shop"),
        ("models:/mixrec-shoe@champion", "registered are mixrec-shop"),
        ("./some/folder", "registered are mixrec-shop"),
        ("", "registered are mixrec-shop"),
        (f"{NAME}/9", rf"no model '{NAME}/9'; known are {NAME}/1, {NAME}/2, {NAME}@champion"),
        (f"{NAME}/one", f"known are {NAME}/1"),
        (f"{NAME}@winner", f"known are {NAME}/1"),
        (f"{NAME}@", None),
    ],
)
def test_an_unknown_model_is_one_clear_error(registry: Registry, model: str, told: str | None, tmp_path: Path) -> None:
    if told is None:  # an empty alias is the default one
        assert registry.fetch(registry.find(model), tmp_path).is_dir()
        return
    with pytest.raises(UserError, match=told) as caught:
        registry.fetch(registry.find(model), tmp_path)
    assert "\n" not in str(caught.value)


def test_mlflow_is_left_as_its_user_had_set_it(uri: str, root: Path, package: Path, tmp_path: Path) -> None:
    """A notebook may log work of its own, with a run under way."""
    own = f"sqlite:///{tmp_path / 'own.db'}"
    mlflow.set_tracking_uri(own)
    try:
        experiment = mlflow.set_experiment("mine")
        with mlflow.start_run() as run:
            version = Registry(uri).register("mixrec-beside", package, new_run(uri, root), ["i1"], "data")
            assert mlflow.get_tracking_uri() == own
            assert mlflow.active_run().info.run_id == run.info.run_id
            mlflow.log_metric("mine", 1.0)
        with mlflow.start_run() as another:
            assert another.info.experiment_id == experiment.experiment_id
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
    client = MlflowClient(tracking_uri=own)
    assert client.get_run(run.info.run_id).data.metrics == {"mine": 1.0}
    assert not client.search_registered_models()
    assert Registry(uri).find("mixrec-beside/1") == version


def test_an_address_in_the_environment_stays_there_alone(
    uri: str, root: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    Registry(uri).register("mixrec-by-environment", package, new_run(uri, root), ["i1"], "data")
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:10")
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:10"


def test_a_store_that_refuses_is_told_in_one_line(
    uri: str, root: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy before MLflow's server that takes no large files: that is no error of MLflow's."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("413 Client Error: Request Entity Too Large")

    monkeypatch.setattr(mlflow.pyfunc, "log_model", refuse)
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", refuse)
    registry, run_id, told = Registry(uri), new_run(uri, root), "does not answer: 413 Client Error"
    with pytest.raises(UserError, match=told):
        registry.register("mixrec-refused", package, run_id, ["i1"], "data")
    with pytest.raises(UserError, match=told):
        registry.describe(ModelVersion("mixrec-refused", "1", ""), {"a": "b"})


def test_an_empty_registry_says_how_to_fill_it(tmp_path: Path) -> None:
    empty = Registry(f"sqlite:///{tmp_path / 'new' / 'empty.db'}")
    with pytest.raises(UserError, match="none is registered yet; `mixrec-automl promote SEARCH` registers one"):
        empty.fetch(empty.find("mixrec-shop"), tmp_path)
    assert empty.champion("mixrec-shop") is None


def test_only_the_champion_that_was_met_is_replaced(uri: str, root: Path, package: Path) -> None:
    registry, name = Registry(uri), "mixrec-met"
    first, second = (registry.register(name, package, new_run(uri, root), ["i1"], "data") for _ in range(2))
    assert registry.replace_champion(None, first)
    assert not registry.replace_champion(None, second)
    assert registry.champion(name) == first
    assert registry.replace_champion(first, second)
    assert registry.replace_champion(first, second), "it is already"
    assert registry.roll_back(name) == (second, first)


def test_files_that_are_gone_are_told(uri: str, root: Path, package: Path, tmp_path: Path) -> None:
    registry = Registry(uri)
    name = "mixrec-gone"
    registry.register(name, package, new_run(uri, root), ["i1"], "data")
    folder = registry.fetch(registry.find(f"{name}/1"), tmp_path)
    folder.rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"mixrec-gone version 1: its package at .* cannot be had .*; if it is gone, promote it again"
    ):
        registry.fetch(registry.find(f"{name}/1"), tmp_path)
    with pytest.raises(UserError, match=r"mixrec-gone version 1: .* promote it again"):
        registry.check_files(registry.find(f"{name}/1"))


def test_a_champion_is_rolled_back_one_at_a_time(uri: str, root: Path, package: Path) -> None:
    registry, name = Registry(uri), "mixrec-back"
    with pytest.raises(UserError, match="mixrec-back has no champion that could be rolled back"):
        registry.roll_back(name)
    run = new_run(uri, root)
    versions = [registry.register(name, package, run, ["i1"], "data") for _ in range(4)]
    first, second, _never_champion, fourth = versions
    for version in (first, second, second, fourth):  # the second one twice: it does not replace itself
        crown(registry, version)
    assert registry.roll_back(name) == (fourth, second)
    assert registry.roll_back(name) == (second, first)
    assert registry.champion(name) == first
    with pytest.raises(UserError, match="mixrec-back version 1 has replaced no other champion"):
        registry.roll_back(name)


def test_nobody_is_rolled_back_to_files_that_are_gone(uri: str, root: Path, package: Path, tmp_path: Path) -> None:
    registry, name = Registry(uri), "mixrec-back-gone"
    first, second = (registry.register(name, package, new_run(uri, root), ["i1"], "data") for _ in range(2))
    crown(registry, first)
    crown(registry, second)
    registry.fetch(first, tmp_path).rename(tmp_path / "moved")
    with pytest.raises(UserError, match="there is no package"):
        registry.roll_back(name)
    assert registry.champion(name) == second


def test_a_server_takes_and_gives_the_same(package: Path, tmp_path: Path) -> None:
    """A server checks what a database takes as it comes."""
    server = MlflowServer(tmp_path / "server")
    server.start()
    try:
        registry = Registry(server.uri)
        version = registry.register(NAME, package, new_run(server.uri, tmp_path), ["i1"], "data")
        registry.describe(version, {"test_mrr": "0.1"})
        crown(registry, version)
        assert Registry(server.uri).champion(NAME) == version
        fetched = registry.fetch(registry.find(NAME), tmp_path / "fetched")
        assert {path.name for path in fetched.iterdir()} == {path.name for path in package.iterdir()}
    finally:
        server.kill()


def test_a_foreign_model_is_told(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=uri)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", source=tmp_path.as_uri())
    with pytest.raises(UserError, match=r"foreign version 1: its package at .* cannot be had"):
        Registry(uri).fetch(Registry(uri).find("foreign/1"), tmp_path)


def test_a_registry_that_does_not_answer_has_no_unknown_champion(tmp_path: Path) -> None:
    """Taken for "no champion yet", a dead server would let anything past the gate."""
    dead = Registry("http://127.0.0.1:9")
    for ask in (lambda: dead.champion(NAME), lambda: dead.fetch(dead.find(NAME), tmp_path)):
        with pytest.raises(UserError, match="the model registry of MLflow does not answer") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_metrics_are_shown_as_tags(registry: Registry, uri: str) -> None:
    registry.describe(ModelVersion(NAME, "2", "data-2"), {"test_mrr": "0.1234"})
    tags = MlflowClient(tracking_uri=uri).get_model_version(NAME, "2").tags
    assert tags.items() >= {"mixrec.data_fingerprint": "data-2", "test_mrr": "0.1234"}.items()


def check_text(path: Path) -> None:
    path.read_text(encoding="utf-8")


def check_safetensors(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        assert list(file.keys())


def test_the_logged_model_holds_code_and_data_but_no_pickle(registry: Registry, package: Path) -> None:
    root = registry.fetch(registry.find(f"{NAME}/1"), Path("/nonexistent")).parents[1]
    description = yaml.safe_load((root / "MLmodel").read_text())
    flavor = description["flavors"]["python_function"]
    assert Path(flavor["model_code_path"]).name == "registry_model.py", "models from code"
    assert (root / "registry_model.py").is_file()
    assert "python_model" not in flavor
    assert description["signature"]["inputs"]
    readers = {
        ".safetensors": check_safetensors,
        ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        ".parquet": pq.read_table,
        ".py": check_text,
        ".yaml": check_text,
        ".txt": check_text,
        ".jinja": check_text,
        "": check_text,
    }
    # Python keeps the compiled code of a module beside it once it has been loaded from there.
    files = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert len(files) > len(list(package.rglob("*")))
    for path in files:
        readers[path.suffix](path)  # a suffix that is not listed, or other content, is an error
        assert not path.suffix or path.name != "MLmodel"
    assert [path.name for path in files if not path.suffix] == ["MLmodel"]


@pytest.mark.usefixtures("registry")
def test_mlflow_loads_and_asks_the_champion(uri: str, package: Path) -> None:
    mlflow.set_tracking_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    finally:
        mlflow.set_tracking_uri(None)
    histories = [["i1", "i2"], ["i7"]]
    answers = loaded.predict(pd.DataFrame({"history": histories}), params={"k": 3, "exclude_seen": True})
    queries = [Query(history, k=3, exclude_seen=True) for history in histories]
    assert answers == [[asdict(one) for one in found] for found in recommend_each(read_package(package), queries)]
    assert [len(answer) for answer in loaded.predict(pd.DataFrame({"history": histories}))] == [10, 10]


QUIETLY = """
import sys
from pathlib import Path
from mixrec_automl.registry import Registry
from mlflow.tracking import MlflowClient

uri, package, artifacts, scratch = sys.argv[1:]
registry = Registry(uri)
client = MlflowClient(tracking_uri=uri)
run = client.create_run(client.create_experiment("s", Path(artifacts).as_uri())).info.run_id
for _ in range(2):
    version = registry.register("mixrec-shop", Path(package), run, ["i1"], "data")
registry.replace_champion(registry.champion(version.name), version)
registry.fetch(registry.find("mixrec-shop"), Path(scratch))
print(version.version)
"""


def test_registering_and_fetching_print_nothing(package: Path, tmp_path: Path) -> None:
    """Commands print their own lines only: not MLflow's, not those of the database that it sets up."""
    arguments = [f"sqlite:///{tmp_path / 'm.db'}", str(package), str(tmp_path / "artifacts"), str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    done = subprocess.run([sys.executable, "-c", QUIETLY, *arguments], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_an_error_of_mlflow_is_no_mere_absence(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    def broken(*_: object) -> None:
        raise MlflowException("database is locked")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", broken)
    with pytest.raises(UserError, match="does not answer: database is locked"):
        registry.champion(NAME)
