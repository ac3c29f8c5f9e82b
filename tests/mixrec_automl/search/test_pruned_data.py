"""What the surrogate is given of a search that prunes: whole trainings alone. Each check can be shown to fail."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev

import pytest

from mixrec_automl.search import ax_proposer
from mixrec_automl.search.ax_proposer import AxProposer, replay
from mixrec_automl.search.pruning import reason_to_prune
from mixrec_automl.search_config import PruningConfig
from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from tests.mixrec_automl.cluster.trainings import true_mrr
from tests.mixrec_automl.search.trials import PAPER, SMALL, recorded, trial

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

C, P, R = TrialState.COMPLETED, TrialState.PRUNED, TrialState.RUNNING
EPOCHS, NOISE = 6, 0.004


def surrogate_data(space: DamoeSpace, trials: Sequence[Trial]) -> dict[Architecture, tuple[float, float]]:
    """Mean and standard error of each design that the surrogate has a value of."""
    experiment = replay(space, trials, 1e-6)
    found = {}
    for row in experiment.lookup_data().df.itertuples():
        parameters = experiment.trials[row.trial_index].arm.parameters
        found[Architecture.from_bits([int(bit) for _, bit in sorted(parameters.items())])] = (row.mean, row.sem)
    return found


def partial_scores_change_nothing(space: DamoeSpace) -> None:
    """Neither data nor proposal, were the best MRR so far of a pruned trial recorded as its own."""
    without = recorded(space, 12, states=(C, C, P, C, R, P))
    with_partial = [replace(one, mrr=0.09) if one.state is P else one for one in without]
    assert sum(one.mrr == 0.09 for one in with_partial) == 4
    assert surrogate_data(space, with_partial) == surrogate_data(space, without)
    proposals = [AxProposer(space).propose(trials, seed=3).architecture for trials in (with_partial, without)]
    assert proposals[0] == proposals[1]
    assert proposals[0] not in {one.architecture for one in without}


@pytest.mark.parametrize("space", [SMALL, PAPER], ids=["exact", "sampled"])
def test_partial_scores_reach_neither_the_data_nor_the_proposals(space: DamoeSpace) -> None:
    partial_scores_change_nothing(space)


def test_a_replay_that_took_partial_scores_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(trials: Iterable[Trial]) -> list[float]:
        return [one.mrr for one in trials if one.mrr is not None]

    monkeypatch.setattr(ax_proposer, "scores", scores)
    with pytest.raises(AssertionError, match="Left contains 4 more items"):
        partial_scores_change_nothing(SMALL)


# A simulated search


def whole_curve(design: Architecture) -> list[float]:
    """Rises to the design's score, with the luck of its seed in every epoch and a little noise in each."""
    draw = random.Random(str(design))
    final = true_mrr(design) + draw.gauss(0, NOISE)
    rising = [final * (0.5 + 0.5 * epoch / EPOCHS) + draw.gauss(0, 0.0005) for epoch in range(1, EPOCHS)]
    return [*rising, max(final, *rising)]


def simulated(config: PruningConfig, designs: Sequence[Architecture], *, partial_as_final: bool = False) -> list[Trial]:
    """One trial after the other, each asked for after every epoch, as by the controller."""
    trials: list[Trial] = []
    curves: dict[int, Mapping[int, float]] = {}
    for number, design in enumerate(designs):
        origin = Origin.SOBOL if number else Origin.FIXED
        trials.append(trial(number, design, state=R, origin=origin))
        curve = whole_curve(design)
        for epoch in range(1, EPOCHS + 1):
            curves[number] = dict(enumerate(curve[:epoch], 1))
            if epoch < EPOCHS and reason_to_prune(config, trials[-1], epoch, trials, curves) is not None:
                best = max(curves[number].values())
                trials[-1] = (
                    replace(trials[-1], state=C, mrr=best) if partial_as_final else replace(trials[-1], state=P)
                )
                break
        else:
            trials[-1] = replace(trials[-1], state=C, mrr=max(curve))
    return trials


def each_value_is_that_of_a_whole_training(trials: Sequence[Trial]) -> None:
    data = surrogate_data(SMALL, trials)
    assert set(data) == {one.architecture for one in trials if one.state is C}
    assert {design: mean for design, (mean, _) in data.items()} == {
        design: pytest.approx(max(whole_curve(design)), abs=1e-12) for design in data
    }


@pytest.fixture(scope="module")
def designs() -> list[Architecture]:
    return [one.architecture for one in recorded(SMALL, 80, states=(C,))]


@pytest.mark.parametrize("rule", ["median", "halving"])
def test_the_values_of_the_surrogate_are_those_without_pruning(rule: str, designs: list[Architecture]) -> None:
    config = PruningConfig(rule=rule)  # type: ignore[arg-type]
    trials = simulated(config, designs)
    pruned = [one for one in trials if one.state is P]
    assert 15 < len(pruned) < 75, "it prunes, and not everything"
    assert min(one.number for one in pruned) >= config.min_trials
    assert {one.mrr for one in pruned} == {None}
    each_value_is_that_of_a_whole_training(trials)


@pytest.mark.parametrize("rule", ["median", "halving"])
def test_partial_scores_as_results_would_be_noticed(rule: str, designs: list[Architecture]) -> None:
    mutant = simulated(PruningConfig(rule=rule), designs, partial_as_final=True)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        each_value_is_that_of_a_whole_training(mutant)
    errors = [(one.mrr or 0.0) - max(whole_curve(one.architecture)) for one in mutant]
    assert fmean(errors) < -NOISE, "such data would be far too low"


@pytest.mark.parametrize("rule", ["median", "halving"])
def test_how_lucky_those_are_that_survive(rule: str) -> None:
    """The bias that remains: which designs have a value is selected, and luck has a part in it."""
    luck, everyone = [], []
    for seed in range(12):
        drawn = [one.architecture for one in recorded(SMALL, 60, states=(C,), seed=seed)]
        trials = simulated(PruningConfig(rule=rule), drawn)  # type: ignore[arg-type]
        all_luck = {one.number: max(whole_curve(one.architecture)) - true_mrr(one.architecture) for one in trials}
        luck += [all_luck[one.number] for one in trials if one.state is C]
        everyone += all_luck.values()
    excess = (fmean(luck) - fmean(everyone)) / pstdev(everyone)
    assert 0 < excess < 0.6, f"{excess:.2f} standard deviations of the seed"
