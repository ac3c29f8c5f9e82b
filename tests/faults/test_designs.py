"""Designs that cannot be trained: each is told of, none holds a slot for good."""

from __future__ import annotations

import psutil
import pytest

from mixrec_automl.store.records import TrialState
from tests.end_to_end.stage import Stage, check_results, plan
from tests.faults.conftest import Recoveries

pytestmark = [pytest.mark.fault, pytest.mark.end_to_end, pytest.mark.timeout(600)]

PATIENT = {"max_failure_rate": 1.0, "max_attempts": 2}


def test_designs_that_raise_report_nan_hang_and_freeze(stage: Stage, recoveries: Recoveries) -> None:
    ills = {1: "raise", 2: "report NaN", 3: "hang", 4: "freeze"}
    what = plan(
        trials=8, slots=2, epochs=3, seconds=0.2, ills=list(ills.items()), search={**PATIENT, "hang_seconds": 3.0}
    )
    with stage.controller(what) as controller:
        assert controller.finish(240) == 0, controller.output
    trials = stage.trials()
    check_results(trials, count=8, failed=tuple(ills))
    errors = {number: trials[number].error or "" for number in ills}
    assert "ArithmeticError: this design cannot be trained" in errors[1]
    assert "epoch 2 reported validation_mrr = nan" in errors[2]
    assert "lost 2 times" in errors[3]
    assert "lost 2 times" in errors[4]
    assert [trials[number].losses for number in ills] == [0, 0, 1, 1]
    assert [trials[number].attempt for number in (1, 2)] == [1, 1], "what raised would raise again"
    for number in (3, 4):
        trial = trials[number]
        assert trial.started_at is not None
        assert trial.finished_at is not None
        seconds = (trial.finished_at - trial.started_at).total_seconds()
        recoveries.add(
            f"a design that would {ills[number]}, hang_seconds: 3",
            "its last attempt is over, the wait for a slot included",
            seconds,
        )


@pytest.mark.parametrize("which_ends", ["its worker", "all that Ray runs"])
def test_a_design_that_eats_memory(stage: Stage, recoveries: Recoveries, which_ends: str) -> None:
    """Ray ends workers before the machine is out of memory; here the limit is little above what is used now.

    It ends the newest first, until `spare` bytes are free below the limit. A worker that has eaten less than that takes
    all others with it, the process that keeps the slots up too. Ray itself takes 1.5 GB.
    """
    memory = psutil.virtual_memory()
    spare = min(memory.total / 20, 3 * 2**30)
    above = spare + 3 * 2**30 if which_ends == "its worker" else 2.2 * 2**30
    limit = (memory.total - memory.available + above) / memory.total
    stage.environment = {"RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    what = plan(trials=3, slots=1, epochs=3, seconds=0.2, ills=[(1, "eat memory")], search=PATIENT)
    with stage.controller(what) as controller:
        controller.wait_for("trial 1  .*epoch 1/")
        fault = f"a design that eats memory; Ray ends {which_ends}"
        with recoveries.timed(fault, "it has been lost twice and given up"):
            stage.wait_for_trials(lambda trials: len(trials) > 1 and trials[1].state is TrialState.FAILED)
        assert controller.finish(240) == 0, controller.output
    trials = stage.trials()
    check_results(trials, count=3, failed=(1,))
    assert "memory" in (trials[1].error or "").lower()
