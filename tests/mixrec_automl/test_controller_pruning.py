"""What the controller makes of trials that promise little: told to end, recorded as PRUNED, never taken for results."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from mixrec_automl.cluster.executor import EpochEnded, Event
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import OnEpoch, Training, TrialScore, TrialTask
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search_config import PruningConfig
from mixrec_automl.store.records import Origin, SearchState, Trial, TrialState, best_trial
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.bench import Bench
from tests.mixrec_automl.cluster.trainings import Counting, true_mrr
from tests.mixrec_automl.proposers import Enumerating
from tests.mixrec_automl.store.writing import writer_of

EPOCHS = 4
KNOWN = 12
"""Completed trials before the one that is judged"""
MEDIAN, HALVING = PruningConfig(rule="median"), PruningConfig(rule="halving")
BAD = Architecture.from_bits((1,) * Enumerating.bits)
GOOD = Architecture.from_bits((0,) * Enumerating.bits)


@dataclass
class Listed(Enumerating):
    """Proposes the designs named, then those that are left."""

    designs: tuple[Architecture, ...] = (BAD,)
    origin: Origin = Origin.SOBOL

    def propose(self, trials: tuple[Trial, ...], *, seed: int) -> Proposal:  # type: ignore[override]
        seen = {trial.architecture for trial in trials}
        self.asked.append(trials)
        left = [design for design in self.designs if design not in seen]
        return Proposal(Design(left[0]), self.origin, 0.0) if left else super().propose(trials, seed=seed)


@dataclass(frozen=True)
class Remembering(Counting):
    """Remembers what it trained."""

    epochs: int = EPOCHS
    begun: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        self.begun.append((trial.number, trial.attempt))
        return super().__call__(trial, on_epoch)


class InStep(InProcessExecutor):
    """A trial begins an epoch once the controller has dealt with the one before: no clock decides what it hears.

    The answer to a report is given at once, as everywhere: what the controller says comes with the next one.
    """

    def __init__(self, training: Training) -> None:
        super().__init__(self._in_step)
        self._inner = training
        self._turn = threading.Condition()
        self._taken: EpochEnded | None = None
        self._dealt_with: set[tuple[int, int, int]] = set()

    def next_event(self, timeout: float) -> Event | None:
        with self._turn:
            if self._taken is not None:
                self._dealt_with.add((self._taken.number, self._taken.attempt, self._taken.epoch))
                self._turn.notify_all()
        event = super().next_event(timeout)
        self._taken = event if isinstance(event, EpochEnded) else None
        return event

    def _in_step(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        def reported(epoch: int, metrics: Mapping[str, float]) -> bool:
            goes_on = on_epoch(epoch, metrics)
            key = (trial.number, trial.attempt, epoch)
            with self._turn:
                while not (key in self._dealt_with or self._stopping.is_set()):
                    self._turn.wait(0.05)
            return goes_on

        return self._inner(trial, reported)


@pytest.fixture(scope="module")
def recorded_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with twelve completed trials, whose first epoch foretold the end; each test copies it.

    SQLite alone: what the controller writes is tested on both databases in `store/test_writer.py`.
    """
    path = tmp_path_factory.mktemp("recorded") / "mixrec.db"
    repository = Repository.open(f"sqlite:///{path}")
    repository.create_search("s", {}, "fingerprint")
    writer = writer_of(repository, "s")
    for number in range(KNOWN):
        design = Architecture.from_bits([int(bit) for bit in format(number + 1, f"0{Enumerating.bits}b")])
        writer.add_trials(number, Design(design), [3], Origin.SOBOL, 0.0)
        writer.start_trial(number, 1)
        for epoch in range(1, EPOCHS + 1):
            writer.record_epoch(number, 1, epoch, {"validation_mrr": true_mrr(design) * epoch / EPOCHS})
        writer.complete_trial(number, 1, true_mrr(design), 0.001)
    repository.close()
    return path


@pytest.fixture
def pruning_bench(recorded_before: Path, tmp_path: Path) -> Iterator[Bench]:
    with (
        closing(sqlite3.connect(recorded_before)) as source,
        closing(sqlite3.connect(tmp_path / "mixrec.db")) as target,
    ):
        source.backup(target)
    repository = Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")
    bench = Bench(repository, tmp_path / "run", epochs=EPOCHS)
    bench.proposer = Listed()
    yield bench
    repository.close()


@pytest.mark.parametrize("config", [MEDIAN, HALVING], ids=["median", "halving"])
def test_a_trial_that_promises_little_is_pruned(pruning_bench: Bench, config: PruningConfig) -> None:
    bench = pruning_bench
    bench.proposer = Listed(designs=(BAD, GOOD))
    search = bench.run_with(partial(InStep, Remembering()), trials=KNOWN + 2, slots=1, pruning=config)
    assert search.state is SearchState.COMPLETED
    bad, good = bench.trials[KNOWN:]
    assert (bad.state, bad.mrr, bad.standard_error, bad.attempt) == (TrialState.PRUNED, None, None, 1)
    assert bad.finished_at is not None
    told = {"median": "below the median of 12 trials at epoch 1: ", "halving": "not among the best 1/3 of 13 trials at"}
    assert (bad.error or "").startswith(told[config.rule])
    epochs = [(it.epoch, it.metrics["validation_mrr"]) for it in bench.repository.observations("s", KNOWN)]
    assert epochs == [(epoch, true_mrr(BAD) * epoch / EPOCHS) for epoch in (1, 2)], "it ends after the epoch it was in"
    assert (good.state, good.mrr) == (TrialState.COMPLETED, true_mrr(GOOD))
    assert bench.proposer.asked[-1][-1].state is TrialState.PRUNED, "its end was known to the next proposal"
    best = best_trial(bench.trials)
    assert best is not None
    assert best.number == KNOWN + 1


def test_without_a_rule_nothing_is_pruned(pruning_bench: Bench) -> None:
    pruning_bench.run_with(partial(InStep, Remembering()), trials=KNOWN + 1, slots=1)
    assert pruning_bench.states == [TrialState.COMPLETED] * (KNOWN + 1)


def test_the_fixed_design_is_never_pruned(pruning_bench: Bench) -> None:
    pruning_bench.proposer = Listed(origin=Origin.FIXED)
    pruning_bench.run_with(partial(InStep, Remembering()), trials=KNOWN + 1, slots=1, pruning=MEDIAN)
    assert pruning_bench.states[-1] is TrialState.COMPLETED


def test_only_the_trial_that_is_meant_ends(pruning_bench: Bench) -> None:
    pruning_bench.proposer = Listed(designs=(BAD, GOOD))
    pruning_bench.run_with(partial(InStep, Remembering()), trials=KNOWN + 2, slots=2, pruning=MEDIAN)
    assert pruning_bench.states[KNOWN:] == [TrialState.PRUNED, TrialState.COMPLETED]


class Deaf(InStep):
    """Its message to end comes too late, or finds the worker dead, as `instead` says."""

    def __init__(self, training: Training, asked: list[tuple[int, int]], instead: str) -> None:
        super().__init__(training)
        self._asked, self._instead = asked, instead

    def end_early(self, number: int, attempt: int) -> None:
        self._asked.append((number, attempt))
        if self._instead == "dies":
            self.cancel(number, attempt)


def test_a_trial_that_ends_by_itself_in_the_meantime_is_completed(pruning_bench: Bench) -> None:
    asked: list[tuple[int, int]] = []
    pruning_bench.run_with(partial(Deaf, Remembering(), asked, "completes"), trials=KNOWN + 1, slots=1, pruning=MEDIAN)
    assert asked == [(KNOWN, 1)], "told once"
    ended = pruning_bench.trials[KNOWN]
    assert (ended.state, ended.mrr, ended.error) == (TrialState.COMPLETED, true_mrr(BAD), None)


def test_a_trial_whose_worker_dies_in_the_meantime_is_not_tried_again(pruning_bench: Bench) -> None:
    asked: list[tuple[int, int]] = []
    pruning_bench.run_with(partial(Deaf, Remembering(), asked, "dies"), trials=KNOWN + 1, slots=1, pruning=MEDIAN)
    ended = pruning_bench.trials[KNOWN]
    assert (ended.state, ended.attempt, ended.losses) == (TrialState.PRUNED, 1, 0)


def test_a_trial_that_raises_in_the_meantime_has_failed(pruning_bench: Bench) -> None:
    """A design that cannot be trained is worth knowing of."""

    @dataclass(frozen=True)
    class Raising(Remembering):
        def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
            super().__call__(trial, on_epoch)
            raise ArithmeticError("too late")

    pruning_bench.run_with(partial(InStep, Raising()), trials=KNOWN + 1, slots=1, pruning=MEDIAN)
    assert pruning_bench.states[KNOWN] is TrialState.FAILED


def test_in_its_last_epoch_a_trial_is_left_alone(pruning_bench: Bench) -> None:
    """Nothing would be saved, and whether the message still came in time would hang on the machine's load."""
    asked: list[tuple[int, int]] = []
    late = replace(HALVING, min_epochs=EPOCHS - 1)
    pruning_bench.run_with(partial(Deaf, Remembering(), asked, "completes"), trials=KNOWN + 1, slots=1, pruning=late)
    assert asked == []


# Interrupted searches


def test_what_is_pruned_stays_so(pruning_bench: Bench, tmp_path: Path) -> None:
    bench = pruning_bench

    def stop_at_the_end(trial: Trial) -> None:
        if trial.state is TrialState.PRUNED:
            bench.stop.set()

    bench.watching.on_trial = stop_at_the_end
    assert (
        bench.run_with(partial(InStep, Remembering()), trials=KNOWN + 3, slots=1, pruning=MEDIAN).state
        is SearchState.STOPPED
    )
    pruned = bench.trials[KNOWN]
    assert pruned.state is TrialState.PRUNED
    assert (tmp_path / "run" / "trials" / str(KNOWN) / "epoch.txt").exists(), "its checkpoints stay"
    bench.stop = StopRequest()
    training = Remembering()
    assert (
        bench.run_with(partial(InStep, training), trials=KNOWN + 3, slots=1, pruning=MEDIAN).state
        is SearchState.COMPLETED
    )
    assert bench.trials[KNOWN] == pruned
    assert KNOWN not in {number for number, _ in training.begun}
    assert len({trial.architecture for trial in bench.trials}) == KNOWN + 3, "its design is not proposed again"


@pytest.mark.parametrize(
    ("recorded", "state", "trained"),
    [
        (1, TrialState.PRUNED, False),
        (EPOCHS, TrialState.COMPLETED, True),  # it had ended, and only its score was not recorded
    ],
)
def test_a_controller_that_died_with_its_verdict(
    pruning_bench: Bench, recorded: int, state: TrialState, trained: bool
) -> None:
    dead = writer_of(pruning_bench.repository, "s")
    dead.add_trials(KNOWN, Design(BAD), [3], Origin.SOBOL, 0.0)
    dead.start_trial(KNOWN, 1)
    for epoch in range(1, recorded + 1):
        dead.record_epoch(KNOWN, 1, epoch, {"validation_mrr": true_mrr(BAD) * epoch / EPOCHS})
    progress = pruning_bench.folder / "trials" / str(KNOWN) / "epoch.txt"
    progress.parent.mkdir(parents=True)
    progress.write_text(str(recorded))
    training = Remembering()
    config = replace(HALVING, min_epochs=recorded)
    pruning_bench.run_with(partial(InStep, training), trials=KNOWN + 1, slots=1, pruning=config)
    found = pruning_bench.trials[KNOWN]
    assert (found.state, found.attempt) == (state, 2)
    assert training.begun == ([(KNOWN, 2)] if trained else [])


def test_a_stop_while_a_trial_is_told_to_end_prunes_it(pruning_bench: Bench) -> None:
    class Stopping(InStep):
        def end_early(self, number: int, attempt: int) -> None:
            super().end_early(number, attempt)
            pruning_bench.stop.set()

    search = pruning_bench.run_with(partial(Stopping, Remembering()), trials=KNOWN + 3, slots=1, pruning=MEDIAN)
    assert search.state is SearchState.STOPPED
    assert pruning_bench.states[KNOWN] is TrialState.PRUNED
