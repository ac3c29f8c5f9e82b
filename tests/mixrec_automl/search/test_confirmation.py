"""The confirmation: which designs and seeds it takes, when it begins and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.confirmation import Confirmation, ConfirmingProposer
from mixrec_automl.search.proposer import Proposal, SpaceExhausted
from mixrec_automl.store.records import Origin, Trial, TrialState, best_trial, by_design, scores
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.proposers import Enumerating
from tests.mixrec_automl.search.trials import SMALL, trial

FIXED = Design(Architecture.parse("000-000"))


@dataclass
class Ranked(Enumerating):
    """Ranks by the mean score."""

    fixed_design: Design = FIXED

    def ranking(self, trials: Sequence[Trial]) -> list[Design]:
        means = {design: scores(group) for design, group in by_design(trials).items() if scores(group)}
        return sorted(means, key=lambda design: -sum(means[design]) / len(means[design]))


def proposer(trials: int = 10, designs: int = 3, seeds: int = 2, bits: int = 6) -> ConfirmingProposer:
    return ConfirmingProposer(Ranked(bits), trials, Confirmation(designs, seeds))


def searched(mrrs: Sequence[float | None]) -> list[Trial]:
    """Designs 000-000, 000-001, ... with these scores; None: it failed."""
    return [
        trial(
            number,
            Architecture.from_bits([int(bit) for bit in f"{number:06b}"]),
            mrr=mrr,
            state=TrialState.FAILED if mrr is None else TrialState.COMPLETED,
            seed=5,
        )
        for number, mrr in enumerate(mrrs)
    ]


def confirmed(trials: list[Trial], proposal: Proposal, mrr: float) -> None:
    assert proposal.seeds is not None
    for seed in proposal.seeds:
        trials.append(trial(len(trials), proposal.architecture, mrr=mrr, origin=proposal.origin, seed=seed))


@pytest.mark.parametrize(
    ("trials", "share", "designs", "seeds"),
    [(12, 1 / 3, 2, 2), (11, 1 / 3, 0, 0), (30, 1 / 3, 3, 3), (8, 0.5, 2, 2), (60, 1 / 3, 5, 4), (100, 0.0, 0, 0)],
)
def test_a_share_of_the_trials_is_as_many_designs_as_seeds(trials: int, share: float, designs: int, seeds: int) -> None:
    assert Confirmation.within(trials, share) == Confirmation(designs, seeds)


def test_the_fixed_design_and_the_best_others_are_trained_with_new_seeds() -> None:
    method, trials = proposer(), searched([0.030, 0.040, 0.050, 0.020])
    found = []
    for _ in range(3):
        proposal = method.propose(trials, seed=5)
        assert proposal is not None
        found.append(str(proposal.architecture))
        assert proposal.origin is Origin.CONFIRMATION
        assert proposal.seeds == (6, 7)
        confirmed(trials, proposal, 0.035)
    assert found == ["000-000", "000-010", "000-001"]
    with pytest.raises(SpaceExhausted):
        method.propose(trials, seed=5)


def test_it_waits_for_every_trial_of_the_search() -> None:
    trials = searched([0.030, 0.040, 0.050, 0.020])
    trials[3] = trial(3, trials[3].architecture, state=TrialState.RUNNING)
    assert proposer().propose(trials, seed=5) is None
    trials[3] = trial(3, trials[3].architecture, state=TrialState.PRUNED)
    assert proposer().propose(trials, seed=5) is not None


def test_before_it_the_search_has_the_rest_of_the_budget() -> None:
    proposal = proposer().propose(searched([0.03, 0.04, 0.05]), seed=5)
    assert proposal is not None
    assert proposal.origin is Origin.SOBOL
    whole = proposer(designs=0, seeds=0).propose(searched([0.03] * 9), seed=5)
    assert whole is not None
    assert whole.origin is Origin.SOBOL


def test_it_begins_early_where_the_space_is_exhausted() -> None:
    method, trials = proposer(trials=60, bits=3), searched([0.03, 0.04, 0.05, 0.01, 0.02, 0.02, 0.02, 0.02])
    trials = [trial(one.number, str(one.architecture)[4:], one.mrr) for one in trials]
    method = ConfirmingProposer(Ranked(3, fixed_design=Design(Architecture.parse("000"))), 60, Confirmation(3, 2))
    proposal = method.propose(trials, seed=5)
    assert proposal is not None
    assert proposal.origin is Origin.CONFIRMATION


@pytest.mark.parametrize("mrrs", [[None, 0.04, 0.05, 0.06], [0.03, None, None, None], [None] * 4])
def test_without_the_fixed_design_and_another_one_there_is_nothing_to_confirm(mrrs: list[float | None]) -> None:
    with pytest.raises(SpaceExhausted):
        proposer().propose(searched(mrrs), seed=5)


def test_the_winner_is_the_best_of_the_confirmation_once_that_has_ended() -> None:
    trials = searched([0.030, 0.040, 0.050, 0.020])
    lucky = trials[2]
    assert best_trial(trials) == lucky
    for design, mrr in ((trials[0], 0.030), (trials[2], 0.028), (trials[1], 0.039)):
        proposal = Proposal(design.design, Origin.CONFIRMATION, 0.0, seeds=(6, 7))
        if design is trials[1]:
            begun = trial(9, design.architecture, state=TrialState.RUNNING, origin=Origin.CONFIRMATION)
            assert best_trial([*trials, begun]) == lucky, "before the end the search's scores count"
        confirmed(trials, proposal, mrr)
    best = best_trial(trials)
    assert best is not None
    assert (str(best.architecture), best.mrr, best.seed) == ("000-001", 0.039, 6)


def test_the_ranking_of_the_surrogate_discounts_luck() -> None:
    """One high score whose neighbours are all low is more likely luck than a score that its neighbours share."""
    rows = {"000-000-000": 0.030, "100-000-000": 0.050, "110-000-000": 0.051, "111-000-000": 0.049}
    rows |= {"000-111-111": 0.0512, "000-111-110": 0.028, "000-110-111": 0.027, "000-011-111": 0.029}
    noise = [trial(20 + n, "000-000-100", mrr=0.03 + 0.008 * (-1) ** n, seed=n) for n in range(8)]
    trials = [trial(number, design, mrr) for number, (design, mrr) in enumerate(rows.items())]
    ranked = AxProposer(SMALL).ranking([*trials, *noise])
    assert str(ranked[0]) in {"100-000-000", "110-000-000", "111-000-000"}
    assert len(ranked) == 9
    assert AxProposer(SMALL).ranking(trials[:1]) == [trials[0].design]
