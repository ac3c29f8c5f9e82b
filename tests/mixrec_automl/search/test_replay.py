"""A search goes on from whatever is recorded of it: trials in all states, and several of one design."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from ax.core.trial_status import TrialStatus
from ax.core.utils import extract_pending_observations
from hypothesis import given, settings
from hypothesis import strategies as st

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search.ax_proposer import METRIC, AxProposer, replay
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.store.records import Origin, SearchState, Trial, TrialState, by_design
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design
from tests.mixrec_automl.bench import Bench
from tests.mixrec_automl.cluster.trainings import true_mrr
from tests.mixrec_automl.search.trials import PAPER, SMALL, recorded, trial

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

TINY = DamoeSpace(backbone_layers=1)
C, F, P = TrialState.COMPLETED, TrialState.FAILED, TrialState.PRUNED
Q, R = TrialState.QUEUED, TrialState.RUNNING
PR = Origin.PROBABILISTIC_REPARAMETERIZATION


# The next proposal


@pytest.mark.parametrize("number", [5, 8, 12])
@pytest.mark.parametrize("space", [SMALL, PAPER], ids=["exact", "sampled"])
@pytest.mark.parametrize("seed", [0, 1])
def test_after_five_designs_in_any_state_the_next_is_optimised(space: DamoeSpace, number: int, seed: int) -> None:
    trials = recorded(space, number, states=(C, F, C, R, P), seed=seed)
    assert {each.state for each in trials} == {C, F, R, P}
    proposal = AxProposer(space).propose(trials, seed=seed)
    assert proposal.origin is PR
    assert proposal.architecture not in {each.architecture for each in trials}


@pytest.mark.parametrize("ended", [F, P])
def test_without_two_completed_designs_there_is_nothing_to_fit(ended: TrialState) -> None:
    """Two replicates of one design are one outcome."""
    trials = recorded(SMALL, 8, states=(ended,))
    trials[:2] = [trial(0, SMALL.fixed_design, mrr=0.05), trial(1, SMALL.fixed_design, mrr=0.06, seed=1)]
    assert AxProposer(SMALL).propose(trials, seed=0).origin is Origin.SOBOL
    trials[2] = replace(trials[2], state=C, mrr=0.04)
    assert AxProposer(SMALL).propose(trials, seed=0).origin is PR


def test_designs_count_and_not_their_replicates() -> None:
    """Nine replicates of three designs are no five designs, and a fourth takes its place in the same sequence."""
    once = recorded(SMALL, 1, states=(C,))
    thrice = recorded(SMALL, 1, states=(C,), replicates=3)
    origins = []
    for _ in range(6):
        single, threefold = (AxProposer(SMALL).propose(trials, seed=3) for trials in (once, thrice))
        origins.append(threefold.origin)
        assert single.origin is threefold.origin
        if single.origin is Origin.SOBOL:
            assert single.architecture == threefold.architecture
        for trials, proposal, replicates in ((once, single, 1), (thrice, threefold, 3)):
            for seed in range(replicates):
                mrr = true_mrr(proposal.architecture) + 0.001 * seed
                trials.append(trial(len(trials), proposal.architecture, mrr=mrr, origin=proposal.origin, seed=seed))
    assert origins == [Origin.SOBOL] * 4 + [PR] * 2


@pytest.mark.parametrize("state", [F, P])
def test_a_replicate_without_a_result_changes_nothing(state: TrialState) -> None:
    """Not even the random numbers, which decide where the expectation is estimated from samples."""
    trials = recorded(PAPER, 9, states=(C,))
    without = [trial(2 * each.number + 1, each.architecture, state=state, origin=each.origin) for each in trials]
    both = [*(replace(each, number=2 * each.number) for each in trials), *without]
    for number in range(1, 10):
        alone = AxProposer(PAPER).propose(trials[:number], seed=5)
        beside = AxProposer(PAPER).propose([each for each in both if each.number < 2 * number], seed=5)
        assert (beside.architecture, beside.origin) == (alone.architecture, alone.origin)


REPLICATES = st.lists(st.tuples(st.sampled_from(list(TrialState)), st.floats(0, 1)), min_size=1, max_size=3)
"""States and scores of the trials of one design"""


@settings(max_examples=60, deadline=None)
@given(
    designs=st.lists(st.tuples(st.integers(0, 7), REPLICATES), max_size=12),
    seed=st.integers(0, 2**31 - 1),
    initial_trials=st.integers(1, 9),
)
def test_no_design_is_repeated_but_as_a_replicate_with_a_seed_of_its_own(
    designs: list[tuple[int, list[tuple[TrialState, float]]]], seed: int, initial_trials: int
) -> None:
    trials: list[Trial] = []
    for bits, replicates in designs:
        for state, mrr in replicates:
            score = mrr if state is C else None
            trials.append(trial(len(trials), format(bits, "03b"), mrr=score, state=state, seed=len(trials)))
    seen = {each.architecture for each in trials}
    proposer = AxProposer(TINY, initial_trials=initial_trials)
    if len(seen) == TINY.size:
        with pytest.raises(SpaceExhausted):
            proposer.propose(trials, seed=seed)
    else:
        proposal = proposer.propose(trials, seed=seed)
        had = {(each.architecture, each.seed) for each in trials}
        assert (proposal.architecture in seen) == (proposal.origin is Origin.REPLICATION)
        assert not had & {(proposal.architecture, own) for own in proposal.seeds or ()}


@pytest.mark.parametrize("initial_trials", [1, 5, 8])
@pytest.mark.parametrize("states", [(C,), (F,), (P, R), (C, F, P, R, Q), (C, C, C, F, P)], ids=str)
@pytest.mark.parametrize("replicates", [1, 2])
def test_a_space_of_eight_designs_is_enumerated(
    initial_trials: int, states: tuple[TrialState, ...], replicates: int
) -> None:
    proposer, trials = AxProposer(TINY, initial_trials=initial_trials), []
    while len(by_design(trials)) < TINY.size:
        proposal = proposer.propose(trials, seed=initial_trials)
        is_new = proposal.design not in by_design(trials)
        assert is_new == (proposal.origin is not Origin.REPLICATION)
        for seed in proposal.seeds or range(replicates):
            state = states[len(trials) % len(states)]
            mrr = true_mrr(proposal.architecture) if state is C else None
            trials.append(trial(len(trials), proposal.architecture, mrr, state, proposal.origin, seed))
        assert len(trials) < 40, "it comes to an end"
    with pytest.raises(SpaceExhausted, match="all 8 designs"):
        proposer.propose(trials, seed=initial_trials)
    assert set(by_design(trials)) == {
        Design(Architecture.from_bits(bits)) for bits in itertools.product((0, 1), repeat=3)
    }


# The replayed experiment


def test_replicates_are_pooled() -> None:
    """Mean of k normal scores of known variance v: standard error sqrt(v / k)."""
    outcomes = {"000-000-000": [0.050, 0.053, 0.061], "111-000-000": [0.040], "111-111-111": [0.03, 0.05]}
    pairs = [(design, mrr) for design, several in outcomes.items() for mrr in several]
    numbers = random.Random(0).sample(range(len(pairs)), len(pairs))  # replicates need not be neighbours
    trials = [trial(number, design, mrr=mrr) for number, (design, mrr) in zip(numbers, pairs, strict=True)]
    experiment = replay(SMALL, trials, 4e-6)
    found = {}
    for row in experiment.lookup_data().df.itertuples():
        bits = "".join(str(bit) for _, bit in sorted(experiment.trials[row.trial_index].arm.parameters.items()))
        found[str(Architecture.parse(bits))] = (row.metric_name, row.mean, row.sem)
    assert found == {
        design: (METRIC, pytest.approx(sum(several) / len(several)), pytest.approx((4e-6 / len(several)) ** 0.5))
        for design, several in outcomes.items()
    }


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ((C,), TrialStatus.COMPLETED),
        ((C, C, F), TrialStatus.COMPLETED),
        ((C, P), TrialStatus.COMPLETED),
        ((C, R, Q), TrialStatus.COMPLETED),
        ((R,), TrialStatus.RUNNING),
        ((Q, F, P), TrialStatus.RUNNING),
        ((F,), TrialStatus.FAILED),
        ((P,), TrialStatus.FAILED),
        ((F, P, F), TrialStatus.FAILED),
    ],
    ids=str,
)
@pytest.mark.parametrize("others", [2, 120], ids=["few", "many"])
def test_what_replicates_amount_to(states: tuple[TrialState, ...], status: TrialStatus, others: int) -> None:
    """Also beyond a hundred trials, where Ax finds out in another way what is pending."""
    trials = recorded(SMALL, others, states=(C,))
    everything = map(Architecture.from_bits, itertools.product((0, 1), repeat=9))
    design = next(one for one in everything if Design(one) not in by_design(trials))
    trials += [
        trial(others + place, design, mrr=0.05 + place / 1000 if state is C else None, state=state, seed=place)
        for place, state in enumerate(states)
    ]
    experiment = replay(SMALL, trials, 1e-6)
    assert len(experiment.trials) == others + 1
    assert experiment.trials[others].status == status
    pending = (extract_pending_observations(experiment) or {}).get(METRIC, [])
    assert [tuple(one.parameters.values()) for one in pending] == [design.bits] * (status is TrialStatus.RUNNING)
    data = experiment.lookup_data().df
    completed = [0.05 + place / 1000 for place, state in enumerate(states) if state is C]
    assert list(data[data["trial_index"] == others]["mean"]) == ([pytest.approx(fmean(completed))] if completed else [])


# The controller, one trial at a time


def noisy(raising: tuple[int, ...]) -> Callable[[TrialTask, OnEpoch], TrialScore | None]:
    """A training whose score hangs on design and seed alone, and which raises in the trials named."""

    def train(task: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        if task.number in raising:
            raise ArithmeticError("cannot be trained")
        for epoch in (1, 2):
            if not on_epoch(epoch, {"validation_mrr": 0.01 * epoch}) and epoch == 1:
                return None
        noise = random.Random(f"{task.architecture} {task.seed}").gauss(0, 0.002)
        return TrialScore(true_mrr(task.architecture) + noise, 0.001)

    return train


@pytest.fixture
def other(tmp_path: Path) -> Bench:
    repository = Repository.open(f"sqlite:///{tmp_path / 'other'}")
    repository.create_search("s", {}, "fingerprint")
    return Bench(repository, tmp_path / "other-run")


def test_an_interrupted_search_is_the_uninterrupted_one(bench: Bench, other: Bench) -> None:
    """Designs, seeds, origins, states and scores: stopped, killed and resumed, replicates among its trials."""
    training, budget = noisy(raising=(4, 5, 12)), {"trials": 18, "slots": 1}

    def disturb(changed: Trial) -> None:
        if (changed.number, changed.state, changed.attempt) in ((3, R, 1), (7, C, 1), (12, F, 1), (14, Q, 0)):
            other.stop.set()
        if (changed.number, changed.state, changed.attempt) in ((6, R, 1), (15, R, 1)):
            raise KeyboardInterrupt

    other.watching.on_trial = disturb
    runs = 0
    state = None
    while state is not SearchState.COMPLETED:
        other.stop = StopRequest()
        other.proposer = AxProposer(SMALL)  # type: ignore[assignment]
        runs += 1
        try:
            state = other.run(training, **budget).state  # type: ignore[arg-type]
        except KeyboardInterrupt:
            state = SearchState.STOPPED
    bench.proposer = AxProposer(SMALL)  # type: ignore[assignment]
    assert bench.run(training, **budget).state is SearchState.COMPLETED  # type: ignore[arg-type]

    def told(of: Bench) -> list[tuple[object, ...]]:
        return [(one.architecture, one.seed, one.origin, one.state, one.mrr) for one in of.trials]

    assert told(other) == told(bench)
    assert runs == 7
    assert bench.states.count(F) == 3
    origins = [one.origin for one in bench.trials]
    assert origins[1:5] == [Origin.SOBOL] * 4
    assert set(origins[5:]) == {PR, Origin.REPLICATION}
