"""A search that starts from another one: what it takes over, and that nothing else of that one counts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixrec_automl.config import from_dict
from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.method import search_method
from mixrec_automl.search.mixed_proposer import MixedProposer
from mixrec_automl.search.transfer import Transfer, transfer_to
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import Origin, Trial, TrialState, WarmStart
from mixrec_automl.store.repository import Repository
from mixrec_automl.warm_start import warm_start_of
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.search.trials import PAPER, SMALL, recorded, trial
from tests.mixrec_automl.store.writing import started, writer_of
from trainers.errors import UserError

# Ax 1.3 uses calls that pandas 3.1 has begun to deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
PR = Origin.PROBABILISTIC_REPARAMETERIZATION


def mrr_of(design: Architecture) -> float:
    """Falls with parallel experts and rises with parallel recommendation adapters, early layers counting most."""
    layers = [layer.bits for layer in design.layers]
    return 0.05 + sum((0.001 * r - 0.002 * (a + b)) / place for place, (a, b, r) in enumerate(layers, start=1))


def score(design: Design) -> float:
    return mrr_of(design.architecture)


def scored(trials: list[Trial]) -> list[Trial]:
    return [replace(one, mrr=mrr_of(one.architecture), state=TrialState.COMPLETED) for one in trials]


SPACE = DesignSpace(SMALL)
SOURCE = WarmStart("source", tuple((one.design, one.mrr or 0.0) for one in scored(recorded(SMALL, 24, seed=3))))
OWN = scored(recorded(SMALL, 8, seed=5))


def test_the_best_designs_of_the_source_follow_the_fixed_one() -> None:
    transfer = transfer_to(SPACE, 5, SOURCE)
    best = sorted((design for design, _ in SOURCE.outcomes if design != SPACE.fixed_design), key=score, reverse=True)
    assert len(transfer.first) == 2
    assert set(transfer.first) <= set(best[:4]), "as the source's surrogate ranks them"
    proposer = AxProposer(SMALL, transfer=transfer)
    trials: list[Trial] = []
    for number in range(5):
        proposal = proposer.propose(trials, seed=7)
        trials.append(trial(number, proposal.design, mrr=mrr_of(proposal.architecture), origin=proposal.origin))
    warm, sobol = Origin.WARM_START, Origin.SOBOL
    assert [one.origin for one in trials] == [Origin.FIXED, warm, warm, sobol, sobol]
    assert tuple(one.design for one in trials[1:3]) == transfer.first
    without = AxProposer(SMALL).propose(trials[:1], seed=7)
    assert (without.origin, without.architecture) == (sobol, trials[3].architecture), "the same sequence, later"


@pytest.mark.parametrize("initial_trials", [1, 2])
def test_with_hardly_any_initial_trials_none_is_taken_over(initial_trials: int) -> None:
    assert transfer_to(SPACE, initial_trials, SOURCE).first == ()


def test_a_prior_that_ranks_well_moves_the_proposal_and_one_that_does_not_changes_nothing() -> None:
    prior = transfer_to(SPACE, 5, SOURCE).prior
    assert prior is not None
    alone = AxProposer(SMALL).propose(OWN, seed=7).architecture
    trusting = AxProposer(SMALL, transfer=Transfer(prior=prior)).propose(OWN, seed=7).architecture
    assert trusting != alone
    assert mrr_of(trusting) > mrr_of(alone)

    opposite = AxProposer(SMALL, transfer=Transfer(prior=lambda bits: -prior(bits)))
    assert opposite.propose(OWN, seed=7).architecture == alone
    assert opposite.ranking(OWN) == AxProposer(SMALL).ranking(OWN)


def test_the_ranking_sees_the_same_mean() -> None:
    """Three lucky trainings, of which the prior knows nothing."""

    def prior(bits: torch.Tensor) -> torch.Tensor:
        return bits @ torch.tensor([-2.0, -2, 1, -1, -1, 0.5, -0.7, -0.7, 0.3], dtype=torch.float64)

    trials = scored(recorded(SMALL, 16, seed=2))
    noisy = [replace(one, mrr=(one.mrr or 0.0) + 0.0015 * (one.number % 5 == 0)) for one in trials]
    truth = sorted({one.design for one in noisy}, key=score, reverse=True)
    best = {
        name: AxProposer(SMALL, transfer=transfer).ranking(noisy)
        for name, transfer in (("alone", Transfer()), ("trusting", Transfer(prior=prior)))
    }
    misplaced = {name: sum(abs(found.index(one) - truth.index(one)) for one in truth) for name, found in best.items()}
    assert misplaced["trusting"] < misplaced["alone"]


def test_a_source_of_another_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"search\.warm_start: search 'source' is of another space: .* 3 DAMoE layers"):
        transfer_to(DesignSpace(PAPER), 5, SOURCE)


WIDTH = "model.bottleneck"
WITH_SETTINGS = DesignSpace.of(
    from_dict({"data": {"name": "x"}, "search": {"settings": {WIDTH: [16, 32, 64, 128]}}}, "test"), 3
)


def true_mrr(design: Design) -> float:
    """Highest at a width of 32."""
    return score(design) - 0.002 * abs(math.log2(float(dict(design.settings)[WIDTH] or 0) / 32))


def wide(design: Design, width: int) -> tuple[Design, float]:
    """With its MRR."""
    own = Design.of(design.architecture, {WIDTH: width})
    return own, true_mrr(own)


def with_widths(source: WarmStart, *widths: int) -> WarmStart:
    outcomes = (wide(one, widths[place % len(widths)]) for place, (one, _) in enumerate(source.outcomes))
    return WarmStart(source.search, tuple(outcomes))


def test_a_search_over_settings_starts_from_one_over_the_same() -> None:
    source = with_widths(SOURCE, 64, 16, 128, 32)
    method = search_method(WITH_SETTINGS, BudgetConfig(trials=30), source)
    trials: list[Trial] = []
    for number in range(6):
        proposal = method.propose(trials, seed=7)
        assert proposal is not None
        trials.append(trial(number, proposal.design, mrr=true_mrr(proposal.design), origin=proposal.origin))
    warm, sobol = Origin.WARM_START, Origin.SOBOL
    assert [one.origin for one in trials] == [Origin.FIXED, warm, warm, sobol, sobol, PR]
    best = sorted(source.outcomes, key=lambda outcome: outcome[1], reverse=True)
    assert {one.design for one in trials[1:3]} <= {design for design, _ in best[:5]}


def test_a_prior_over_settings_moves_the_proposal_and_one_that_does_not_rank_changes_nothing() -> None:
    prior = transfer_to(WITH_SETTINGS, 5, with_widths(SOURCE, 64, 16, 128, 32)).prior
    assert prior is not None
    tried = [WITH_SETTINGS.fixed_design, *(wide(one.design, (128, 16)[one.number % 2])[0] for one in OWN[1:])]
    trials = [trial(number, design, mrr=true_mrr(design)) for number, design in enumerate(tried)]
    alone, trusting, opposite = (
        MixedProposer(WITH_SETTINGS, transfer=transfer)
        for transfer in (Transfer(), Transfer(prior=prior), Transfer(prior=lambda rows: -prior(rows)))
    )
    known, new = (one.propose(trials, seed=7).design for one in (alone, trusting))
    assert true_mrr(new) > true_mrr(known)
    assert opposite.propose(trials, seed=7).design == known
    assert opposite.ranking(trials) == alone.ranking(trials)


@pytest.mark.parametrize(
    ("space", "source"),
    [(WITH_SETTINGS, SOURCE), (SPACE, with_widths(SOURCE, 16)), (WITH_SETTINGS, with_widths(SOURCE, 8))],
    ids=["none", "only the source has", "another value"],
)
def test_a_source_with_other_settings_is_refused(space: DesignSpace, source: WarmStart) -> None:
    with pytest.raises(UserError, match=r"search\.warm_start: search 'source' is of another space"):
        transfer_to(space, 5, source)


def test_without_a_source_the_search_method_is_what_it_was() -> None:
    assert search_method(SPACE, BudgetConfig(trials=9)).search == AxProposer(SMALL)


def complete(repository: Repository, name: str, trials: list[Trial], first: int = 0) -> None:
    writer = writer_of(repository, name)
    for number, one in enumerate(trials, start=first):
        started(writer, number, design=one.design, seed=one.seed)
        writer.complete_trial(number, 1, one.mrr or 0.0, 0.001)


def test_a_resumed_search_proposes_the_same_whatever_has_become_of_its_source(tmp_path: Path) -> None:
    repository = Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")
    repository.create_search("source", {}, "")
    complete(repository, "source", scored(recorded(SMALL, 10, seed=3)))
    budget = BudgetConfig(trials=12, warm_start="source")
    taken = warm_start_of("new", budget, repository)
    repository.create_search("new", {}, "", warm_start=taken)
    first = search_method(SPACE, budget, taken)
    complete(repository, "source", scored(recorded(SMALL, 30, seed=4))[11:], first=10)

    again = warm_start_of("new", budget, repository)
    assert again == taken == repository.search("new").warm_start
    resumed = search_method(SPACE, budget, again)
    assert warm_start_of("newer", budget, repository) != taken, "the source has gone on"
    begun, whole = OWN[:1], OWN[:7]
    assert first.propose(begun, seed=7).architecture == resumed.propose(begun, seed=7).architecture  # type: ignore[union-attr]
    assert first.propose(whole, seed=7).architecture == resumed.propose(whole, seed=7).architecture  # type: ignore[union-attr]
    repository.close()
