"""The loop of the controller on a real database, with trainings that take no time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest

from mixrec_automl.cluster.executor import EpochEnded, Event, TrialCompleted
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.store.records import Origin, SearchState, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.bench import Bench
from tests.mixrec_automl.cluster.trainings import Counting, Troubled, true_mrr
from tests.mixrec_automl.proposers import Enumerating
from tests.mixrec_automl.store.writing import writer_of


@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_runs_its_budget_and_records_everything(bench: Bench, slots: int) -> None:
    search = bench.run(Counting(epochs=3), trials=7, slots=slots)
    assert search.state is SearchState.COMPLETED
    assert search.error is None
    assert bench.states == [TrialState.COMPLETED] * 7
    assert [trial.mrr for trial in bench.trials] == [true_mrr(trial.architecture) for trial in bench.trials]
    assert {trial.seed for trial in bench.trials} == bench.proposer.seeds == {3}, "common random numbers"
    assert len({trial.architecture for trial in bench.trials}) == 7
    seen = bench.repository.observations("s")
    assert [(it.trial, it.attempt, it.epoch) for it in seen] == [(n, 1, e) for n in range(7) for e in (1, 2, 3)]
    assert bench.woken >= len(seen) + 3 * 7
    for number in range(7):
        own = [state for changed, state in bench.watching.changes if changed == number]
        assert own == [TrialState.QUEUED, TrialState.RUNNING, TrialState.COMPLETED]


def test_one_slot_proposes_from_all_results_so_far(bench: Bench) -> None:
    bench.run(Counting(), trials=5, slots=1)
    for index, trials in enumerate(bench.proposer.asked):
        assert [trial.state for trial in trials] == [TrialState.COMPLETED] * index


@dataclass(frozen=True)
class Meeting:
    """Ends only once as many trials as `barrier` has parties train at the same time."""

    barrier: threading.Barrier

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        self.barrier.wait(timeout=10)
        return Counting()(trial, on_epoch)


def test_slots_run_side_by_side_and_proposals_see_what_is_pending(bench: Bench) -> None:
    search = bench.run(Meeting(threading.Barrier(3)), trials=6, slots=3)
    assert search.state is SearchState.COMPLETED
    assert [trial.state for trial in bench.proposer.asked[2]] == [TrialState.RUNNING] * 2
    # A design waits while all slots are busy: it was proposed with all three pending.
    assert [trial.state for trial in bench.proposer.asked[3]] == [TrialState.RUNNING] * 3


def test_a_slot_that_becomes_free_finds_a_design_waiting(bench: Bench) -> None:
    bench.proposer.seconds = 0.2
    bench.run(Counting(epochs=1, seconds=0.5), trials=8, slots=2)
    finished = {trial.number: trial.finished_at for trial in bench.trials}
    gaps = []
    for trial in bench.trials[3:]:
        before = max(end for number, end in finished.items() if end and trial.started_at and end <= trial.started_at)
        assert trial.started_at is not None
        gaps.append((trial.started_at - before).total_seconds())
    assert sorted(gaps)[len(gaps) // 2] < 0.1, "half of a proposal's time"


def test_no_more_trials_run_than_there_are_slots(bench: Bench) -> None:
    running: set[int] = set()
    most = 0

    def count(trial: Trial) -> None:
        nonlocal most
        (running.add if trial.state is TrialState.RUNNING else running.discard)(trial.number)
        most = max(most, len(running))

    bench.watching.on_trial = count
    bench.run(Counting(seconds=0.02), trials=8, slots=2)
    assert most == 2


def test_events_are_taken_while_a_slow_proposal_is_made(bench: Bench) -> None:
    bench.proposer.seconds = 0.5
    bench.run(Counting(epochs=4, seconds=0.05), trials=2, slots=2)
    first = [event for event in bench.watching.epochs if event.number == 0]
    started = next(trial.started_at for trial in bench.trials if trial.number == 1)
    times = [it.recorded_at for it in bench.repository.observations("s", 0)]
    assert len(first) == 4
    assert started is not None
    assert times[1] < started, "trial 0 trained while trial 1 was being proposed"


def test_a_failed_trial_keeps_its_traceback_and_the_search_goes_on(bench: Bench) -> None:
    search = bench.run(Troubled(raising=(1,), diverging=(3,)), trials=6)
    assert search.state is SearchState.COMPLETED
    failed = {trial.number: trial for trial in bench.trials if trial.state is TrialState.FAILED}
    assert set(failed) == {1, 3}
    assert "Traceback" in (failed[1].error or "")
    assert "ArithmeticError: trial 1 cannot be trained" in (failed[1].error or "")
    assert "epoch 1 reported loss_seq = nan" in (failed[3].error or "")
    assert bench.repository.observations("s", 3) == ()


def test_too_many_failures_end_the_search_and_it_can_be_resumed(bench: Bench) -> None:
    search = bench.run(Troubled(raising=(0, 2, 3)), trials=20, slots=1)
    assert search.state is SearchState.FAILED
    assert search.error is not None
    assert search.error.startswith("3 of 4 trials failed")
    assert "trial 3 cannot be trained" in search.error
    assert len(bench.trials) == 4
    resumed = bench.run(Counting(), trials=8, slots=1)
    assert resumed.state is SearchState.COMPLETED
    assert resumed.error is None
    assert bench.states.count(TrialState.COMPLETED) == 5


def test_a_search_without_any_completed_trial_has_failed(bench: Bench) -> None:
    search = bench.run(Troubled(raising=(0, 1)), trials=2)
    assert search.state is SearchState.FAILED
    assert "no trial was completed; the last error: " in (search.error or "")
    told = search.error
    assert "cannot be trained" in (told or "")
    assert bench.run(Counting(), trials=2).error == told, "and there is nothing left to run"


def test_a_small_space_ends_the_search_early(bench: Bench) -> None:
    search = bench.run(Counting(), trials=70, slots=4)
    assert search.state is SearchState.COMPLETED
    assert len(bench.trials) == 2**Enumerating.bits


def test_stop_and_resume_lose_no_finished_epoch_and_no_trial(bench: Bench) -> None:
    def stop_at_two(trial: Trial) -> None:
        if trial.state is TrialState.COMPLETED and trial.number == 1:
            bench.stop.set()

    bench.watching.on_trial = stop_at_two
    training = Counting(epochs=3, seconds=0.05)
    stopped = bench.run(training, trials=6)
    assert stopped.state is SearchState.STOPPED
    done = [trial for trial in bench.trials if trial.state is TrialState.COMPLETED]
    assert TrialState.RUNNING not in bench.states
    assert len(bench.trials) < 6
    bench.stop = StopRequest()
    bench.watching.on_trial = lambda _: None
    assert bench.run(training, trials=6).state is SearchState.COMPLETED
    assert bench.states == [TrialState.COMPLETED] * 6
    assert [trial for trial in bench.trials if trial.number in {it.number for it in done}] == done
    epochs = [(it.trial, it.epoch) for it in bench.repository.observations("s")]
    assert sorted(epochs) == [(n, e) for n in range(6) for e in (1, 2, 3)], "each epoch was trained exactly once"


class Patient(InProcessExecutor):
    """Its trainings end their only epoch at its close, whatever they are told before."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        super().__init__(self._train)

    def _train(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        self._closing.wait()
        return Counting(epochs=1)(trial, on_epoch)

    def close(self) -> None:
        self._closing.set()
        super().close()


def test_a_training_that_does_not_react_is_left_for_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixrec_automl.controller.STOP_SECONDS", 0.3)
    executors: list[InProcessExecutor] = []

    def stop_at_the_third(trial: Trial) -> None:
        if trial.number == 2:
            bench.stop.set()

    bench.watching.on_trial = stop_at_the_third

    def make() -> InProcessExecutor:
        executors.append(Patient())
        return executors[-1]

    search = bench.run_with(make, trials=4)
    assert search.state is SearchState.STOPPED
    # One waits beside the two that ran; all are to be run (again) when the search is resumed.
    assert [(trial.state, trial.attempt) for trial in bench.trials] == [
        (TrialState.QUEUED, 1), (TrialState.QUEUED, 1), (TrialState.QUEUED, 0),
    ]  # fmt: skip
    # What these attempts report too late belongs to no running attempt any more.
    late: list[Event] = []
    while (event := executors[0].next_event(0.1)) is not None:
        late.append(event)
    assert {type(event) for event in late} == {EpochEnded, TrialCompleted}
    assert bench.states == [TrialState.QUEUED] * 3


def test_a_dead_controllers_trials_are_run_again(bench: Bench) -> None:
    design = Architecture.from_bits((1,) * Enumerating.bits)
    dead = writer_of(bench.repository, "s")
    dead.add_trials(0, Design(design), [3], Origin.SOBOL, 0.0)
    dead.start_trial(0, 1)
    dead.record_epoch(0, 1, 1, {"validation_mrr": 0.01})
    assert bench.run(Counting(), trials=3).state is SearchState.COMPLETED
    first = bench.trials[0]
    assert (first.architecture, first.attempt, first.state) == (design, 2, TrialState.COMPLETED)


def test_an_error_of_the_search_itself_is_recorded_and_raised(bench: Bench) -> None:
    @dataclass
    class Broken(Enumerating):
        def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
            if len(trials) == 2:
                raise LookupError("no surrogate today")
            return super().propose(trials, seed=seed)

    bench.proposer = Broken()
    with pytest.raises(LookupError, match="no surrogate today"):
        bench.run(Counting(seconds=0.3))
    search = bench.repository.search("s")
    assert search.state is SearchState.FAILED
    assert "no surrogate today" in (search.error or "")
    assert TrialState.RUNNING not in bench.states
    bench.proposer = Enumerating()
    assert bench.run(Counting()).state is SearchState.COMPLETED


def test_an_interrupt_is_recorded_as_stopped(bench: Bench) -> None:
    def interrupt(trial: Trial) -> None:
        if trial.state is TrialState.RUNNING and trial.number == 2:
            raise KeyboardInterrupt

    bench.watching.on_trial = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.run(Counting(), slots=1)
    assert bench.repository.search("s").state is SearchState.STOPPED
    assert bench.states == [TrialState.COMPLETED, TrialState.COMPLETED, TrialState.QUEUED]


def test_a_stop_after_the_last_trial_changes_nothing(bench: Bench) -> None:
    def stop_at_the_end(trial: Trial) -> None:
        if trial.number == 1 and trial.state is TrialState.COMPLETED:
            bench.stop.set()

    bench.watching.on_trial = stop_at_the_end
    assert bench.run(Counting(), trials=2, slots=1).state is SearchState.COMPLETED


def test_a_late_message_of_another_attempt_is_ignored(bench: Bench) -> None:
    """An executor may still hold events of an attempt that is over."""

    class Confused(InProcessExecutor):
        def submit(self, trial: TrialTask) -> None:
            self._events.put(TrialCompleted(trial.number, trial.attempt + 1, 0.9, 0.0))
            self._events.put(EpochEnded(trial.number + 1, trial.attempt, 1, {"validation_mrr": 0.9}))
            super().submit(trial)

    bench.run_with(partial(Confused, Counting()), trials=2, slots=1)
    assert all(trial == replace(trial, mrr=true_mrr(trial.architecture)) for trial in bench.trials)
    assert len(bench.repository.observations("s")) == 4
