"""The loop of the controller where what comes next hangs on results: replicates, and the confirmation of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search.confirmation import Confirmation, ConfirmingProposer
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.store.records import Origin, SearchState, Trial, TrialState, best_trial
from tests.mixrec_automl.bench import Bench
from tests.mixrec_automl.cluster.trainings import Counting, Troubled, true_mrr
from tests.mixrec_automl.search.test_confirmation import Ranked


@dataclass
class Confirming(Ranked):
    """As a search does: nine trials, four of them for the confirmation of the best design."""

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal | None:  # type: ignore[override]
        self.asked.append(tuple(trials))
        inner = Ranked(self.bits)
        return ConfirmingProposer(inner, 9, Confirmation(2, 2)).propose(trials, seed=seed)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_confirmation_follows_once_all_else_has_ended(bench: Bench, slots: int) -> None:
    bench.proposer = Confirming()
    search = bench.run(Counting(epochs=1, seconds=0.02), trials=9, slots=slots)
    assert search.state is SearchState.COMPLETED
    assert [trial.origin for trial in bench.trials] == [Origin.SOBOL] * 5 + [Origin.CONFIRMATION] * 4
    assert [(str(t.architecture), t.seed) for t in bench.trials[5:]] == [
        ("000-000", 4),
        ("000-000", 5),
        ("000-001", 4),
        ("000-001", 5),
    ]
    assert bench.states == [TrialState.COMPLETED] * 9
    begun = min(trial.created_at for trial in bench.trials[5:] if trial.created_at)
    assert all(trial.finished_at and trial.finished_at <= begun for trial in bench.trials[:5])


@dataclass(frozen=True)
class Parallel:
    """Parallel adapters are better."""

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        Counting(epochs=1)(trial, on_epoch)
        return TrialScore(0.2 - true_mrr(trial.architecture), 0.001)


@pytest.mark.parametrize("slots", [1, 2])
def test_no_part_of_the_confirmation_names_a_winner(bench: Bench, slots: int) -> None:
    """The fixed design is confirmed first, and would be the best of those until another one is."""
    bench.proposer = Confirming()
    best: list[str] = []

    def look(_: Trial) -> None:
        found = best_trial(bench.trials)
        if found is not None and bench.states[:5] == [TrialState.COMPLETED] * 5:
            best.append(str(found.architecture))

    bench.watching.on_trial = look
    bench.run(Parallel(), trials=9, slots=slots)
    assert bench.states == [TrialState.COMPLETED] * 9
    assert len(best) == 1 + 3 * 4, "from the end of the fifth on, each of the others is queued, begun and completed"
    assert set(best) == {"000-011"}


@dataclass(frozen=True)
class Stopping:
    """Sets the stop of a bench in one trial."""

    bench: Bench = field(repr=False)
    number: int = 0

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        if trial.number == self.number:
            self.bench.stop.set()
        return Counting(epochs=1)(trial, on_epoch)


@pytest.mark.parametrize("number", [4, 5, 7])
def test_a_search_that_was_stopped_around_its_confirmation_goes_on_with_it(bench: Bench, number: int) -> None:
    bench.proposer = Confirming()
    assert bench.run(Stopping(bench, number), trials=9).state is SearchState.STOPPED
    bench.stop = StopRequest()
    assert bench.run(Counting(), trials=9).state is SearchState.COMPLETED
    assert [trial.origin for trial in bench.trials] == [Origin.SOBOL] * 5 + [Origin.CONFIRMATION] * 4
    assert len({(trial.architecture, trial.seed) for trial in bench.trials}) == 9


def test_a_search_whose_fixed_design_failed_ends_without_a_confirmation(bench: Bench) -> None:
    bench.proposer = Confirming()
    search = bench.run(Troubled(raising=(0,)), trials=9)
    assert search.state is SearchState.COMPLETED
    assert len(bench.trials) == 5
    best = best_trial(bench.trials)
    assert best is not None
    assert best.mrr == true_mrr(best.architecture)


@dataclass
class Replicating(Ranked):
    """Every second trial is one more of the design before it."""

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        if len(trials) % 2 == 0:
            return super().propose(trials, seed=seed)
        last = trials[-1]
        return Proposal(last.design, Origin.REPLICATION, 0.0, seeds=(last.seed + 1,))


def test_a_replicate_is_a_trial_of_its_own(bench: Bench) -> None:
    bench.proposer = Replicating()
    assert bench.run(Counting(), trials=5).state is SearchState.COMPLETED
    own = [(trial.architecture, trial.seed) for trial in bench.trials]
    assert [seed for _, seed in own] == [3, 4, 3, 4, 3]
    assert own[0][0] == own[1][0] != own[2][0] == own[3][0]
    assert replace(bench.trials[1], number=0, origin=Origin.SOBOL).label == bench.trials[0].label


@dataclass
class Silent(Ranked):
    """Never knows."""

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal | None:  # type: ignore[override]
        return None if trials else super().propose(trials, seed=seed)


def test_a_method_that_waits_for_nothing_ends_the_search(bench: Bench) -> None:
    bench.proposer = Silent()
    assert bench.run(Counting(), trials=5).state is SearchState.COMPLETED
    assert len(bench.trials) == 1
