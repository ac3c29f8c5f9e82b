"""MLflow's side of attempts that were lost, and of controllers that were replaced."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from mixrec_automl import tracking
from mixrec_automl.mlflow_view import MlflowView
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from mixrec_automl.tracking import Projector
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import started, writer_of

NAME = "s"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")
    repository.create_search(NAME, {"training": {"epochs": 9}}, "fingerprint")
    yield repository
    repository.close()


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def view(repository: Repository, uri: str, folder: Path) -> MlflowView:
    return MlflowView.open(repository.search(NAME), uri, folder)


def runs_of(repository: Repository, uri: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(NAME)
    created = repository.search(NAME).created_at.isoformat()
    where = f"tags.`mixrec.created` = '{created}'"
    return list(client.search_runs([experiment.experiment_id], where)) if experiment is not None else []


def runs_of_trials(repository: Repository, uri: str) -> dict[str, tuple[str, str | None]]:
    """Status and error of each run of this search's trials by its name, no two of one name."""
    found: dict[str, tuple[str, str | None]] = {}
    runs = runs_of(repository, uri)
    assert sum("mixrec.trial" not in run.data.tags for run in runs) == 1, "the search's own"
    for run in runs:
        if "mixrec.trial" in run.data.tags:
            assert run.info.run_name not in found, "a run was created twice"
            found[run.info.run_name] = (run.info.status, run.data.tags.get("mixrec.error"))
    return found


def finish(writer: SearchWriter, attempt: int) -> None:
    writer.record_epoch(0, attempt, 1, {"validation_mrr": 0.1})
    writer.complete_trial(0, attempt, 0.1, 0.001)


@pytest.mark.parametrize("often", [True, False], ids=["at each change", "at the end"])
def test_the_error_of_an_attempt_stands_on_its_own_run(
    repository: Repository, uri: str, tmp_path: Path, often: bool
) -> None:
    shown = view(repository, uri, tmp_path)

    def show() -> None:
        if often:
            shown.update(repository)

    writer = writer_of(repository, NAME)
    started(writer, 0)
    show()
    writer.requeue_trial(0, 1, lost="worker\nwas killed")
    show()
    writer.start_trial(0, 2)
    show()
    shown.update(repository)
    finish(writer, 2)
    shown.update(repository)
    assert runs_of_trials(repository, uri) == {
        "trial-000": ("KILLED", "was killed"),
        "trial-000-attempt-2": ("FINISHED", None),
    }


def test_an_attempt_that_was_stopped_carries_no_older_error(repository: Repository, uri: str, tmp_path: Path) -> None:
    shown, writer = view(repository, uri, tmp_path), writer_of(repository, NAME)
    started(writer, 0)
    writer.requeue_trial(0, 1, lost="worker was killed")
    writer.start_trial(0, 2)
    shown.update(repository)
    writer.requeue_trial(0, 2)
    shown.update(repository)
    assert runs_of_trials(repository, uri)["trial-000-attempt-2"] == ("KILLED", None)


def test_a_pruned_run_and_one_that_was_lost_are_told_apart(repository: Repository, uri: str, tmp_path: Path) -> None:
    """MLflow knows KILLED alone for both."""
    writer = writer_of(repository, NAME)
    started(writer, 0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    writer.requeue_trial(0, 1, lost="worker was killed")
    writer.start_trial(0, 2)
    writer.record_epoch(0, 2, 2, {"validation_mrr": 0.1})
    writer.prune_trial(0, 2, "below the median of 7 trials at epoch 2")
    view(repository, uri, tmp_path).update(repository)
    lost, pruned = sorted(
        (run for run in runs_of(repository, uri) if "mixrec.trial" in run.data.tags), key=lambda run: run.info.run_name
    )
    assert (lost.info.status, pruned.info.status) == ("KILLED", "KILLED")
    assert (lost.data.tags["mixrec.killed"], pruned.data.tags["mixrec.killed"]) == ("interrupted", "pruned")
    assert pruned.data.tags["mixrec.reason"] == "below the median of 7 trials at epoch 2"
    assert not {"mixrec.error", "mixrec.reason"} & lost.data.tags.keys()
    assert "mixrec.error" not in pruned.data.tags
    assert pruned.data.metrics["epochs_saved"] == 7
    assert not {"mrr", "epochs_saved"} & lost.data.metrics.keys()
    assert "mrr" not in pruned.data.metrics


def test_two_views_of_one_search_make_each_run_once(repository: Repository, uri: str, tmp_path: Path) -> None:
    """A process that stood still does not know of the runs that its successor has made."""
    old, new = view(repository, uri, tmp_path), view(repository, uri, tmp_path)
    writer = writer_of(repository, NAME)
    new.update(repository)
    old.update(repository)
    started(writer, 0)
    finish(writer, 1)
    new.update(repository)
    old.update(repository)
    assert runs_of_trials(repository, uri) == {"trial-000": ("FINISHED", None)}


def test_a_projector_whose_controller_was_replaced_writes_nothing_more(
    repository: Repository, uri: str, tmp_path: Path
) -> None:
    writer = writer_of(repository, NAME)
    projector = Projector(repository, NAME, uri, tmp_path, writer.holds_lease)
    successor = writer_of(repository, NAME, who="another", dead="me")
    started(successor, 0)
    finish(successor, 1)
    projector.start()
    projector.close()
    assert repository.search(NAME).tracked_revision == -1
    assert runs_of(repository, uri) == []


def test_a_projector_whose_controller_was_replaced_is_quiet_about_trouble(
    repository: Repository, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of MLflow as well as of the database: the search is its successor's."""
    monkeypatch.setattr(tracking, "FIRST_RETRY_SECONDS", 0.01)
    writer = writer_of(repository, NAME)

    def replaced_and_refused(*_: object) -> MlflowView:
        if writer.holds_lease():
            writer_of(repository, NAME, who="another", dead="me")
        raise ConnectionError("gone")

    monkeypatch.setattr(tracking, "open_view", replaced_and_refused)
    projector = Projector(repository, NAME, uri, tmp_path, writer.holds_lease)
    projector.start()
    assert projector.close(10)
    assert repository.search(NAME).tracking_error is None


def test_the_end_does_not_wait_for_a_database_that_is_locked(
    repository: Repository, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(tracking, "open_view", lambda *_: over.wait(20))
    projector = Projector(repository, NAME, uri, tmp_path, lambda: True)
    projector.start()
    with closing(sqlite3.connect(tmp_path / "mixrec.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert not projector.close(0.2)
        assert time.monotonic() - began < 2
        other.execute("ROLLBACK")
    over.set()


def test_the_settings_of_a_design_are_parameters_of_its_run(repository: Repository, uri: str, tmp_path: Path) -> None:
    writer = writer_of(repository, NAME)
    settings = {"model.bottleneck": 16, "training.learning_rate": 0.1 + 0.2}
    started(writer, 0, design=Design.of(Architecture.parse("010"), settings))
    writer.complete_trial(0, 1, 0.05, 0.001)
    view(repository, uri, tmp_path).update(repository)
    (parent,) = [run for run in runs_of(repository, uri) if "mixrec.trial" not in run.data.tags]
    (child,) = [run for run in runs_of(repository, uri) if "mixrec.trial" in run.data.tags]
    assert {key: child.data.params[key] for key in settings} == {key: repr(value) for key, value in settings.items()}
    assert parent.data.tags["mixrec.best_architecture"] == "010"
    assert parent.data.tags["mixrec.best.training.learning_rate"] == "0.3"
