"""MLflow as a view of the database, with a real MLflow on SQLite."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from mixrec_automl import mlflow_view, tracking
from mixrec_automl.store.records import SearchState, TrialState
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from mixrec_automl.tracking import Projector, project
from search_spaces.architecture import Architecture
from tests.mixrec_automl.store.writing import added, started, writer_of

NAME = "demo"
CONFIG = {"data": {"name": "ml-100k"}, "search": {"trials": 4, "absent": None}}


@pytest.fixture(scope="module")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, which take seconds to make: each test copies it."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    tracking.set_mlflow_environment()
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_file(empty_mlflow: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(empty_mlflow) as source, sqlite3.connect(path) as target:
        source.backup(target)
    return path


@pytest.fixture
def uri(mlflow_file: Path) -> str:
    return f"sqlite:///{mlflow_file}"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")
    repository.create_search(NAME, CONFIG, "fingerprint")
    yield repository
    repository.close()


@pytest.fixture
def writer(repository: Repository) -> SearchWriter:
    return writer_of(repository, NAME)


def complete(writer: SearchWriter, number: int, bits: str, mrr: float) -> None:
    started(writer, number, design=Architecture.parse(bits))
    for epoch in (1, 2):
        writer.record_epoch(number, 1, epoch, {"validation_mrr": mrr / epoch, "loss_seq": 9.0 - epoch})
    writer.complete_trial(number, 1, mrr, 0.001)


def contents(uri: str) -> dict[str, Any]:
    """Everything that MLflow holds of the search, by run name, with the whole history of each metric."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(NAME)
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.run_name not in found, "a run was created twice"
        found[run.info.run_name] = {
            "id": run.info.run_id,
            "status": run.info.status,
            "start": run.info.start_time,
            "end": run.info.end_time,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                key: [
                    (point.step, point.timestamp, point.value)
                    for point in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            },
            "artifacts": [artifact.path for artifact in client.list_artifacts(run.info.run_id)],
        }
    return found


def test_a_search_with_every_kind_of_trial(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    complete(writer, 0, "000-000", 0.04)
    started(writer, 1, design=Architecture.parse("000-111"))
    writer.fail_trial(1, 1, "Traceback:\n  x = 1 / 0\nZeroDivisionError: division by zero\n")
    complete(writer, 2, "111-000", 0.03)
    started(writer, 3, design=Architecture.parse("111-111"))
    writer.record_epoch(3, 1, 1, {"validation_mrr": 0.01})
    writer.requeue_trial(3, 1, lost="worker died")
    writer.start_trial(3, 2)
    writer.record_epoch(3, 2, 2, {"validation_mrr": 0.02})
    added(writer, 4, design=Architecture.parse("010-101"))
    started(writer, 5, design=Architecture.parse("010-111"))
    writer.prune_trial(5, 1, "below the median")

    project(repository, NAME, uri, tmp_path / "artifacts")
    runs = contents(uri)

    assert {name: run["status"] for name, run in runs.items()} == {
        NAME: "RUNNING",
        "trial-000": "FINISHED",
        "trial-001": "FAILED",
        "trial-002": "FINISHED",
        "trial-003": "KILLED",
        "trial-003-attempt-2": "RUNNING",
        "trial-005": "KILLED",
    }
    assert set(mlflow_view.CHILD_STATUS) == set(TrialState)
    parent = runs[NAME]
    assert parent["params"] == {"fingerprint": "fingerprint", "data.name": "ml-100k", "search.trials": "4"}
    assert [(step, value) for step, _, value in parent["metrics"]["best_mrr"]] == [(1, 0.04), (2, 0.04)]
    assert [value for _, _, value in parent["metrics"]["mrr"]] == [0.04, 0.03]
    assert parent["tags"]["mixrec.best_architecture"] == "000-000"
    assert parent["artifacts"] == ["config.yaml"]

    trial, observed = repository.trials(NAME)[0], repository.observations(NAME, 0)
    child = runs["trial-000"]
    assert child["tags"]["mlflow.parentRunId"] == parent["id"]
    assert (child["tags"]["mixrec.search"], child["tags"]["mixrec.trial"], child["tags"]["mixrec.attempt"]) == (
        NAME,
        "0",
        "1",
    )
    assert child["params"] == {
        "architecture": "000-000", "bits": "000000", "layers": "2", "seed": "7", "origin": "Sobol",
    }  # fmt: skip
    stamps = [int(epoch.recorded_at.timestamp() * 1000) for epoch in observed]
    assert child["metrics"]["validation_mrr"] == [(1, stamps[0], 0.04), (2, stamps[1], 0.02)]
    assert child["metrics"]["loss_seq"] == [(1, stamps[0], 8.0), (2, stamps[1], 7.0)]
    assert trial.started_at is not None
    assert trial.finished_at is not None
    assert [value for _, _, value in child["metrics"]["mrr"]] == [0.04]
    assert [value for _, _, value in child["metrics"]["seconds"]] == [
        (trial.finished_at - trial.started_at).total_seconds()
    ]
    assert (child["start"], child["end"]) == tuple(
        int(moment.timestamp() * 1000) for moment in (trial.started_at, trial.finished_at)
    )

    assert runs["trial-001"]["tags"]["mixrec.error"] == "ZeroDivisionError: division by zero"
    assert runs["trial-001"]["artifacts"] == ["error.txt"]
    assert "mrr" not in runs["trial-001"]["metrics"]
    assert [step for step, _, _ in runs["trial-003"]["metrics"]["validation_mrr"]] == [1]
    assert [step for step, _, _ in runs["trial-003-attempt-2"]["metrics"]["validation_mrr"]] == [2]


def test_the_winner_of_each_moment(repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path) -> None:
    """Trial 0 leads, gives way to a design with no replicate to come, and leads again once its own has ended."""
    view, best = tracking.open_view(repository, NAME, uri, tmp_path), []
    for number in (0, 1):
        started(writer, number, design=Architecture.parse("000"), seed=7 + number)
    for end in (
        lambda: writer.complete_trial(0, 1, 0.06, 0.001),
        lambda: complete(writer, 2, "111", 0.04),
        lambda: writer.fail_trial(1, 1, "boom"),
    ):
        end()
        view.update(repository)
        best.append((early := contents(uri))[NAME]["tags"]["mixrec.best_trial"])
    assert best == ["0", "2", "0"]
    for run in early.values():
        MlflowClient(tracking_uri=uri).delete_run(run["id"])
    project(repository, NAME, uri, tmp_path)
    assert contents(uri)[NAME]["metrics"] == early[NAME]["metrics"]
    assert [value for _, _, value in early[NAME]["metrics"]["best_mrr"]] == [0.06, 0.04]


def test_projecting_twice_is_projecting_once(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    complete(writer, 0, "000", 0.04)
    started(writer, 1, design=Architecture.parse("001"))
    project(repository, NAME, uri, tmp_path)
    before = contents(uri)
    project(repository, NAME, uri, tmp_path)
    assert contents(uri) == before


def test_many_small_updates_end_where_one_large_one_does(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    view = tracking.open_view(repository, NAME, uri, tmp_path)
    for number, (bits, mrr) in enumerate((("000", 0.02), ("010", 0.05), ("111", 0.03))):
        started(writer, number, design=Architecture.parse(bits))
        view.update(repository)
        for epoch in (1, 2):
            writer.record_epoch(number, 1, epoch, {"validation_mrr": mrr})
            view.update(repository)
        writer.complete_trial(number, 1, mrr, 0.001)
        view.update(repository)
    writer.set_state(SearchState.COMPLETED)
    view.update(repository)
    small = contents(uri)
    client = MlflowClient(tracking_uri=uri)
    for run in small.values():
        client.delete_run(run["id"])
    project(repository, NAME, uri, tmp_path)
    large = contents(uri)
    own = {"id", "tags"}
    assert {name: {key: run[key] for key in run.keys() - own} for name, run in small.items()} == {
        name: {key: run[key] for key in run.keys() - own} for name, run in large.items()
    }
    assert [value for _, _, value in small[NAME]["metrics"]["best_mrr"]] == [0.02, 0.05, 0.05]
    assert small[NAME]["status"] == "FINISHED"


@pytest.mark.parametrize("calls", range(1, 16))
def test_a_failure_at_any_call_is_made_good(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """MLflow fails at its n-th write; the next projection gives what an undisturbed one gives."""
    complete(writer, 0, "000", 0.04)
    started(writer, 1, design=Architecture.parse("001"))
    writer.fail_trial(1, 1, "boom")
    left = [calls]
    for method in ("create_run", "log_batch", "log_text", "set_terminated"):
        original = getattr(MlflowClient, method)

        def flaky(self: MlflowClient, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise ConnectionError("gone")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, method, flaky)
    with pytest.raises(ConnectionError, match="gone"):
        project(repository, NAME, uri, tmp_path)
    project(repository, NAME, uri, tmp_path)
    runs = contents(uri)
    assert {name: run["status"] for name, run in runs.items()} == {
        NAME: "RUNNING", "trial-000": "FINISHED", "trial-001": "FAILED",
    }  # fmt: skip
    assert [step for step, _, _ in runs["trial-000"]["metrics"]["validation_mrr"]] == [1, 2]
    assert [value for _, _, value in runs["trial-000"]["metrics"]["mrr"]] == [0.04]
    assert [value for _, _, value in runs[NAME]["metrics"]["best_mrr"]] == [0.04]
    assert all(run["params"] for run in runs.values())
    assert runs["trial-001"]["artifacts"] == ["error.txt"]


def test_a_stopped_search_that_is_resumed(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    statuses = []
    for state in (SearchState.STOPPED, SearchState.RUNNING, SearchState.FAILED, SearchState.RUNNING):
        writer.set_state(state, "too many failures" if state is SearchState.FAILED else None)
        project(repository, NAME, uri, tmp_path)
        statuses.append(contents(uri)[NAME]["status"])
    assert statuses == ["KILLED", "RUNNING", "FAILED", "RUNNING"]
    assert contents(uri)[NAME]["tags"]["mixrec.error"] == "too many failures"


def test_two_searches_of_one_name_do_not_mix(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    complete(writer, 0, "000", 0.04)
    project(repository, NAME, uri, tmp_path)
    other = Repository.open(f"sqlite:///{tmp_path / 'other.db'}")
    other.create_search(NAME, CONFIG, "fingerprint")
    complete(writer_of(other, NAME), 0, "111", 0.01)
    project(other, NAME, uri, tmp_path)
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    children = [run for run in runs if "mixrec.trial" in run.data.tags]
    assert sorted(run.data.params["bits"] for run in children) == ["000", "111"]
    other.close()


def test_a_deleted_experiment_comes_back(repository: Repository, uri: str, tmp_path: Path) -> None:
    project(repository, NAME, uri, tmp_path)
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.get_experiment_by_name(NAME).experiment_id)
    project(repository, NAME, uri, tmp_path)
    assert client.get_experiment_by_name(NAME).lifecycle_stage == "active"


def test_large_batches_are_split(repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path) -> None:
    started(writer, 0)
    for epoch in range(1, 31):
        writer.record_epoch(0, 1, epoch, {f"m{index}": float(index) for index in range(40)})
    project(repository, NAME, uri, tmp_path)
    metrics = contents(uri)["trial-000"]["metrics"]
    assert sum(map(len, metrics.values())) == 1200 > mlflow_view.LARGEST_METRIC_BATCH


def test_the_projector_follows_the_search(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    projector = Projector(repository, NAME, uri, tmp_path, lambda: True)
    projector.start()
    complete(writer, 0, "000", 0.04)
    projector.wake()
    complete(writer, 1, "001", 0.05)
    writer.set_state(SearchState.COMPLETED)
    assert projector.close(60)
    runs = contents(uri)
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(
        (NAME, "trial-000", "trial-001"), "FINISHED"
    )
    assert repository.search(NAME).tracking_error is None


def test_the_projector_catches_up_after_an_outage(
    repository: Repository, writer: SearchWriter, uri: str, mlflow_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(tracking, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # its own retries take a minute
    away = mlflow_file.with_suffix(".away")
    mlflow_file.rename(away)
    mlflow_file.mkdir()  # a folder cannot be opened as a database
    projector = Projector(repository, NAME, uri, tmp_path, lambda: True)
    with caplog.at_level(logging.INFO, "mixrec_automl.tracking"):
        projector.start()
        complete(writer, 0, "000", 0.04)
        projector.wake()
        wait_for(lambda: repository.search(NAME).tracking_error is not None)
        time.sleep(0.3)  # several retries
        mlflow_file.rmdir()
        away.rename(mlflow_file)
        wait_for(lambda: repository.search(NAME).tracking_error is None)
    assert [record.levelname for record in caplog.records if record.name == "mixrec_automl.tracking"] == [
        "WARNING",
        "INFO",
    ]
    assert projector.close(60)
    assert contents(uri)["trial-000"]["status"] == "FINISHED"


def test_a_dead_server_delays_nobody(repository: Repository, tmp_path: Path) -> None:
    projector = Projector(repository, NAME, "http://127.0.0.1:9", tmp_path, lambda: True)
    start = time.monotonic()
    projector.start()
    for _ in range(100):
        projector.wake()
    assert time.monotonic() - start < 0.5
    start = time.monotonic()
    assert not projector.close(timeout=0.5)
    assert time.monotonic() - start < 2.0
    assert repository.search(NAME).tracking_error is not None


def test_the_cursor_says_how_far_mlflow_is_behind(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path
) -> None:
    assert repository.search(NAME).changes_not_tracked == 1
    complete(writer, 0, "000", 0.04)
    assert repository.search(NAME).changes_not_tracked == 6, "created, added, started, two epochs, completed"
    project(repository, NAME, uri, tmp_path)
    assert repository.search(NAME).changes_not_tracked == 0
    started(writer, 1)
    assert repository.search(NAME).changes_not_tracked == 2


def test_an_update_reads_only_what_is_new(
    repository: Repository, writer: SearchWriter, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = tracking.open_view(repository, NAME, uri, tmp_path)
    for number, bits in enumerate(("000", "001", "010")):
        complete(writer, number, bits, 0.04)
    view.update(repository)
    read: list[int] = []
    original = Repository.observations

    def observations(self: Repository, search: str, trial: int | None = None) -> Any:
        read.append(-1 if trial is None else trial)
        return original(self, search, trial)

    monkeypatch.setattr(Repository, "observations", observations)
    view.update(repository)
    assert read == []
    started(writer, 3)
    view.update(repository)
    assert read == [3]


def test_a_projector_that_never_started_closes(repository: Repository, uri: str, tmp_path: Path) -> None:
    assert Projector(repository, NAME, uri, tmp_path, lambda: True).close(1)


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
