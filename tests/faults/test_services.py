"""What a search leans on goes away and comes back: database, MLflow, disk."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mixrec_automl.store.records import SearchState
from tests.end_to_end.drive import NAME
from tests.end_to_end.stage import Stage, check_results, plan
from tests.faults.conftest import Recoveries, SmallDisk
from tests.mlflow_server import MlflowServer
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.fault, pytest.mark.end_to_end, pytest.mark.timeout(600)]

OUTAGE_SECONDS = 30.0


def wait_until_tracked(stage: Stage, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (behind := stage.search().changes_not_tracked) > 0:
        assert time.monotonic() < deadline, f"MLflow is {behind} changes behind"
        time.sleep(0.2)


def check_mlflow(uri: str, *, trials: int, epochs: int) -> None:
    """Each trial is there once, finished, with each epoch once."""
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = (one for one in client.search_experiments() if NAME in one.name)
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "mixrec.trial" in run.data.tags]
    assert sorted(int(run.data.tags["mixrec.trial"]) for run in runs) == list(range(trials))
    for run in runs:
        assert run.info.status == "FINISHED"
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "validation_mrr")]
        assert sorted(steps) == list(range(1, epochs + 1))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_the_database_is_away_for_half_a_minute(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, recoveries: Recoveries, how: str
) -> None:
    """Trials that run go on meanwhile, what they report is recorded afterwards, and nothing is trained twice."""
    stage = Stage(tmp_path / "home", database_url=postgres_url)
    with stage.controller(plan(trials=6, slots=2, epochs=10, seconds=1.0)) as controller:
        controller.wait_for("trial 0  .*epoch 2/")
        if how == "killed":
            postgres.kill()
        else:
            postgres.freeze()
        time.sleep(OUTAGE_SECONDS)
        assert "the database does not answer" in controller.output
        postgres.restore()
        seen = len(stage.observations())
        with recoveries.timed(f"database {how} for {OUTAGE_SECONDS:.0f} s", "what trials did meanwhile is recorded"):
            while len(stage.observations()) <= seen:
                time.sleep(0.1)
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=6)
    assert {trial.attempt for trial in stage.trials()} == {1}
    for trial in stage.trials():
        assert [seen.epoch for seen in stage.observations(trial.number)] == list(range(1, 11))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_mlflow_goes_away_and_comes_back(
    stage: Stage, mlflow_server: MlflowServer, recoveries: Recoveries, how: str
) -> None:
    """The search takes no notice; afterwards MLflow has every epoch, once."""
    stage.tracking_uri = mlflow_server.uri
    with stage.controller(plan(trials=20, slots=2, epochs=4, seconds=0.5)) as controller:
        controller.wait_for("trial 1  .*COMPLETED")
        if how == "killed":
            mlflow_server.kill()
        else:
            mlflow_server.freeze()
        began = time.monotonic()
        controller.wait_for("trial 7  .*COMPLETED")
        assert time.monotonic() - began < 20, "six more trials on two slots take six seconds when nothing is wrong"
        shown = stage.command("show", NAME)
        assert "MLflow" in shown.stdout, shown.stdout + shown.stderr
        assert "behind" in shown.stdout, shown.stdout
        if how == "killed":
            mlflow_server.start()
        else:
            mlflow_server.thaw()
        with recoveries.timed(f"MLflow {how}", "it shows all of the search again"):
            wait_until_tracked(stage, 60)
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=20)
    wait_until_tracked(stage, 1)
    check_mlflow(mlflow_server.uri, trials=20, epochs=4)


def test_mlflow_stays_away_until_after_the_end(
    stage: Stage, mlflow_server: MlflowServer, recoveries: Recoveries
) -> None:
    stage.tracking_uri = mlflow_server.uri
    with stage.controller(plan(trials=3, epochs=2)) as controller:
        controller.wait_for("trial 0  .*epoch 1/")
        mlflow_server.kill()
        assert controller.finish() == 0, controller.output
        assert "mixrec-automl ui catches up" in controller.output
    mlflow_server.start()
    with recoveries.timed("MLflow dead until after the end", "`ui` has caught up"):
        assert stage.command("ui").returncode == 0
    wait_until_tracked(stage, 1)
    check_mlflow(mlflow_server.uri, trials=3, epochs=2)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_the_disk_of_the_checkpoints_fails_for_a_while(
    stage: Stage, small_disk: SmallDisk, recoveries: Recoveries, how: str
) -> None:
    with stage.controller(plan(trials=4, slots=2, epochs=6, seconds=0.3, kilobytes=500)) as controller:
        controller.wait_for("trial 0  .*epoch 1/")
        if how == "full":
            small_disk.fill()
        else:
            small_disk.remount("ro")
        controller.wait_for("checkpoints cannot be written, trials wait")
        time.sleep(5)
        if how == "full":
            small_disk.empty()
        else:
            small_disk.remount("rw")
        seen = len(stage.observations())
        with recoveries.timed(f"disk {how} for 5 s", "a trial has finished another epoch"):
            while len(stage.observations()) <= seen:
                time.sleep(0.1)
        assert controller.finish() == 0, controller.output
    trials = stage.trials()
    check_results(trials, count=4)
    assert [trial.losses for trial in trials] == [0] * 4, "a disk in trouble counts against no design"


def test_a_disk_that_stays_read_only_ends_the_search_which_can_be_resumed(
    stage: Stage, small_disk: SmallDisk, recoveries: Recoveries
) -> None:
    what = plan(trials=2, epochs=4, seconds=0.3)
    with stage.controller(what) as controller:
        controller.wait_for("trial 0  .*epoch 1/")
        small_disk.remount("ro")
        with recoveries.timed("disk read-only for good", "the search has ended with the remedy"):
            assert controller.finish(180) == 1, controller.output
        assert "so free or mend the disk before you go on" in " ".join(controller.output.split())
    assert stage.search().state is SearchState.FAILED
    small_disk.remount("rw")
    with stage.controller(what) as controller:
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=2)


def test_stop_from_another_process(stage: Stage, recoveries: Recoveries) -> None:
    with stage.controller(plan(trials=8, slots=1, epochs=4, seconds=0.5)) as controller:
        controller.wait_for("trial 0  .*epoch 1/")
        told: list[int] = []
        with recoveries.timed("`stop` from another process", "the search is recorded as stopped"):
            thread = threading.Thread(target=lambda: told.append(stage.command("stop", NAME).returncode))
            thread.start()
            assert controller.finish(60) == 130, controller.output
        thread.join()
    assert told == [0]
    assert stage.search().state is SearchState.STOPPED
