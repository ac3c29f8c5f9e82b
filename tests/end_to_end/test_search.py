"""A search as a process: to its end, and interrupted as a user or a scheduler does it, then resumed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from mixrec_automl.store.records import SearchState, TrialState
from tests.end_to_end.stage import SECONDS_TO_END, Stage, plan

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "home")


def test_a_search_runs_to_its_end(stage: Stage) -> None:
    with stage.controller(plan(trials=2, epochs=2)) as controller:
        assert controller.finish() == 0, controller.output
        assert "trial 1  000-000-001  COMPLETED  MRR" in controller.output
        assert "mixrec-automl promote s" in controller.output
    repository = stage.repository()
    assert repository.search("s").state is SearchState.COMPLETED
    assert [trial.state for trial in repository.trials("s")] == [TrialState.COMPLETED] * 2
    assert [(it.trial, it.epoch) for it in repository.observations("s")] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert stage.left_behind() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to see what is left behind")
@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.fault)])
def test_a_signal_stops_a_search_that_can_be_resumed(stage: Stage, sent: signal.Signals) -> None:
    with stage.controller(plan(trials=1, epochs=8, seconds=1.0)) as controller:
        controller.wait_for("trial 0  000-000-000  epoch 2/8")
        ray_folders = set(re.findall(r"/tmp/mixrec-\w+", " ".join(stage.left_behind())))
        assert len(ray_folders) == 1, "the checks below can see Ray"
        began = time.monotonic()
        if sent is signal.SIGINT:
            os.killpg(controller.process.pid, sent)  # a terminal sends Ctrl-C to all processes in the foreground
        else:
            controller.process.send_signal(sent)
        assert controller.finish(60) == 130, controller.output
        assert time.monotonic() - began < SECONDS_TO_END, controller.output
        assert "mixrec-automl resume s" in controller.output
    assert stage.left_behind() == []
    assert not any(Path(folder).exists() for folder in ray_folders)
    repository = stage.repository()
    assert repository.search("s").state is SearchState.STOPPED
    assert [trial.state for trial in repository.trials("s")] == [TrialState.QUEUED]
    recorded = {it.epoch for it in repository.observations("s", 0)}

    with stage.controller(plan(trials=1, epochs=8)) as controller:
        assert controller.finish() == 0, controller.output
    assert [(trial.state, trial.attempt) for trial in repository.trials("s")] == [(TrialState.COMPLETED, 2)]
    second = {it.epoch for it in repository.observations("s", 0) if it.attempt == 2}
    assert recorded | second == set(range(1, 9))
    assert len(recorded & second) <= 1, "at most the epoch that was lost on the way is trained again"
