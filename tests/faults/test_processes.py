"""Processes that die, at any moment: no finished trial is lost, none is counted twice, the number is right."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest

from mixrec_automl.store.records import Trial, TrialState
from tests.end_to_end.stage import Stage, check_results, plan
from tests.faults.conftest import Recoveries

pytestmark = [pytest.mark.fault, pytest.mark.end_to_end, pytest.mark.timeout(900)]

KILLS = 20
RUNNING_SECONDS = 8.0
"""How long after its start a controller may live, in which trials are completed."""
RAYS_OWN = (sys.executable, "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE")
"""Processes of Ray's own, which notice only after half a minute or more that their node is gone; so does a worker that
was still on its way into the cluster. None of them has work."""
SEED_VARIABLE = "MIXREC_FAULT_SEED"
"""Repeats the moments of a run whose seed was printed."""


def completed(trials: tuple[Trial, ...]) -> dict[int, Trial]:
    return {trial.number: trial for trial in trials if trial.state is TrialState.COMPLETED}


def test_a_controller_that_is_killed_at_any_moment(stage: Stage, recoveries: Recoveries) -> None:
    """`kill -9`, `KILLS` times in a row: while it starts, proposes, records, or waits."""
    seed = int(os.environ.get(SEED_VARIABLE, random.SystemRandom().randrange(10**6)))
    print(f"{SEED_VARIABLE}={seed}")
    moments, what = random.Random(seed), plan(trials=120, slots=2, epochs=4, seconds=0.5)
    began = time.monotonic()
    with stage.controller(what) as controller:
        controller.wait_for("trial 0  .*epoch 1/")
        start_seconds = time.monotonic() - began
        controller.kill()
    before = completed(stage.trials())
    for kill in range(KILLS):
        moment = moments.uniform(0, start_seconds + RUNNING_SECONDS)
        with stage.controller(what) as controller:
            time.sleep(moment)
            still_there = controller.process.poll() is None
            controller.kill()
        assert still_there, f"kill {kill}: it had ended by itself:\n{controller.output}"
        after = completed(stage.trials())
        assert {number: after.get(number) for number in before} == before, f"kill {kill} at {moment:.2f} s"
        assert stage.left_behind(15, but=RAYS_OWN) == [], "what Ray had started goes with the controller"
        print(f"kill {kill} after {moment:.2f} s: {len(after)} trials completed")
        before = after
    with stage.controller(what) as controller:
        with recoveries.timed("controller killed", "`resume` has brought a trial further"):
            controller.wait_for(r"epoch \d/4|COMPLETED")
        assert controller.finish(300) == 0, controller.output
    assert stage.left_behind(120) == []
    trials = stage.trials()
    check_results(trials, count=120)
    assert {number: completed(trials)[number] for number in before} == before
    for trial in trials:
        epochs = [seen.epoch for seen in stage.observations(trial.number)]
        assert set(epochs) == {1, 2, 3, 4}
    assert stage.search().changes_not_tracked == 0


def test_a_worker_that_is_killed(stage: Stage, recoveries: Recoveries) -> None:
    """Its trial goes on from its own checkpoint in a new worker, and the other slot notices nothing."""
    with stage.controller(plan(trials=2, slots=2, epochs=30, seconds=1.0)) as controller:
        controller.wait_for("trial 0  .*epoch 2/")
        controller.wait_for("trial 1  .*epoch 2/")
        victim = stage.workers()[0]
        os.kill(victim, signal.SIGKILL)
        with recoveries.timed("worker killed", "its trial has finished another epoch"):
            number = stage.wait_for_attempt(2)
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=2)
    lost, other = stage.trials()[number], stage.trials()[1 - number]
    assert (lost.attempt, lost.losses) == (2, 1)
    assert (other.attempt, other.losses) == (1, 0)
    epochs = [(seen.attempt, seen.epoch) for seen in stage.observations(number)]
    first = [epoch for attempt, epoch in epochs if attempt == 1]
    second = [epoch for attempt, epoch in epochs if attempt == 2]
    assert first[0] == 1
    assert second == list(range(second[0], 31))
    assert first[-1] <= second[0] <= first[-1] + 2, "it went on where it was"


def test_the_process_between_controller_and_workers_is_killed(stage: Stage, recoveries: Recoveries) -> None:
    with stage.controller(plan(trials=6, slots=2, epochs=4, seconds=0.5)) as controller:
        controller.wait_for("trial 0  .*epoch 1/")
        (keeper,) = (pid for pid, line in stage.processes().items() if line.startswith("ray::SlotRunner"))
        os.kill(keeper, signal.SIGKILL)
        with recoveries.timed("slots' keeper killed", "a trial has been completed"):
            stage.wait_for_trials(lambda trials: bool(completed(trials)))
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=6)


def test_ray_itself_is_killed(stage: Stage, recoveries: Recoveries) -> None:
    """The controller cannot outlive its Ray; `resume` can."""
    what = plan(trials=3, slots=1, epochs=20, seconds=0.5)
    with stage.controller(what) as controller:
        controller.wait_for("trial 0  .*COMPLETED")
        (raylet,) = (pid for pid, line in stage.processes().items() if "/raylet/raylet" in line)
        os.kill(raylet, signal.SIGKILL)
        with recoveries.timed("Ray killed", "the controller has ended and nothing is left of it"):
            assert controller.finish(120) != 0
            assert stage.left_behind(20) == []
    before = completed(stage.trials())
    assert before
    with stage.controller(what) as controller:
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=3)
    assert {number: completed(stage.trials())[number] for number in before} == before


def test_ctrl_c(stage: Stage, recoveries: Recoveries) -> None:
    what = plan(trials=8, slots=2, epochs=4, seconds=0.5)
    with stage.controller(what) as controller:
        controller.wait_for("trial 1  .*epoch 1/")
        before = completed(stage.trials())
        with recoveries.timed("Ctrl-C", "the search is recorded as stopped and nothing runs any more"):
            os.killpg(controller.process.pid, signal.SIGINT)
            assert controller.finish(60) == 130, controller.output
        assert stage.left_behind(5) == []
    with stage.controller(what) as controller:
        assert controller.finish() == 0, controller.output
    check_results(stage.trials(), count=8)
    assert before.items() <= completed(stage.trials()).items()
