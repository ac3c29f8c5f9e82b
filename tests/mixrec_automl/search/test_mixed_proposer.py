"""The search over bits and settings: what it proposes, and that it finds what there is to find."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import pytest
import torch

from mixrec_automl.config import from_dict
from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.confirmation import ConfirmingProposer
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.encoding import of_settings, points_of
from mixrec_automl.search.method import search_method
from mixrec_automl.search.mixed_proposer import MixedProposer
from mixrec_automl.search.parameter_cost import parameter_cost
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import Proposer, SpaceExhausted
from mixrec_automl.search.suggestion import Evidence
from mixrec_automl.search.trial_surrogate import fit_trials
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import Origin, Trial, TrialState, best_trial, by_design
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design
from search_spaces.mixed import Value
from tests.mixrec_automl.search.trials import MIXED, trial

LIGHT = Ascent(restarts=24, steps=20, samples=8)
RATE = {"low": 1e-4, "high": 1e-2, "scale": "log"}


def space_of(settings: dict[str, object], layers: int = 2) -> DesignSpace:
    return DesignSpace.of(from_dict({"data": {"name": "x"}, "search": {"settings": settings}}, "test"), layers)


SPACE = space_of(
    {
        "model.bottleneck": [16, 32, 64, 128],
        "model.context_expert": ["bottleneck", "lora", "none"],
        "training.learning_rate": RATE,
    },
    layers=3,
)


def score(design: Design) -> float:
    """Best, 1, at a serial causal expert everywhere, parallel context experts, width 32 and a rate of 2e-3."""
    settings = dict(design.settings)
    layers = design.architecture.layers
    kind = {"bottleneck": 0.1 + 0.1 * fmean(layer.context_expert for layer in layers), "lora": 0.05, "none": 0.0}
    return (
        0.4
        + kind[str(settings["model.context_expert"])]
        + 0.2 * (1 - fmean(layer.causal_expert for layer in layers))
        + 0.2
        - 0.06 * abs(math.log2(float(settings["model.bottleneck"] or 0) / 32))
        - 0.4 * math.log10(float(settings["training.learning_rate"] or 0) / 2e-3) ** 2
    )


def run(proposer: Proposer, budget: int, seed: int, deviation: float = 0.0) -> list[Trial]:
    draw, trials = random.Random(seed), list[Trial]()
    while len(trials) < budget:
        proposal = proposer.propose(trials, seed=seed)
        assert proposal is not None
        for own in proposal.seeds or (seed,):
            mrr = score(proposal.design) + draw.gauss(0, deviation)
            trials.append(trial(len(trials), proposal.design, mrr, origin=proposal.origin, seed=own))
    return trials


def test_16_trials_come_closer_to_the_optimum_than_as_many_at_random() -> None:
    draw, levels = random.Random(0), (2,) * 9 + (4, 3)

    def at_random() -> float:
        rows = [[*(draw.randrange(count) for count in levels), draw.random()] for _ in range(16)]
        return max(score(SPACE.design(SPACE.mixed.setting(row))) for row in rows)

    regret_by_chance = 1 - fmean(at_random() for _ in range(200))
    found = [max(score(one.design) for one in run(MixedProposer(SPACE, ascent=LIGHT), 16, seed)) for seed in range(3)]
    assert 1 - fmean(found) < 0.5 * regret_by_chance, (found, regret_by_chance)


def test_first_the_fixed_design_then_quasi_random_ones_then_pr_and_no_design_by_chance_twice() -> None:
    trials = run(MixedProposer(SPACE, ascent=LIGHT), 14, seed=3, deviation=0.01)
    assert trials[0].design == SPACE.fixed_design
    assert [one.origin for one in trials[:5]] == [Origin.FIXED, *[Origin.SOBOL] * 4]
    later = {one.origin for one in trials[5:]}
    assert later == {Origin.PROBABILISTIC_REPARAMETERIZATION, Origin.REPLICATION}, (
        "ten are completed: noise is measured"
    )
    again = [one for one in trials if one.origin is Origin.REPLICATION]
    assert len({one.design for one in trials}) == len(trials) - len(again)
    assert len({(one.design, one.seed) for one in trials}) == len(trials)
    for one in trials:
        SPACE.check(one.design)


def test_a_proposal_tells_the_covariance_that_was_chosen() -> None:
    proposer = MixedProposer(SPACE, ascent=LIGHT)
    trials = run(proposer, 6, seed=0)
    asked = proposer.propose(trials, seed=0)
    assert asked.kernel == fit_trials(trials, of_settings(SPACE)).covar_module.name != ""
    assert proposer.propose(trials[:2], seed=0).kernel == "", "a quasi-random one asks no surrogate"


@pytest.mark.parametrize("count", [3, 9])
def test_it_is_a_function_of_the_trials_and_the_seed(count: int) -> None:
    """In the order of neither trials nor global random numbers: a search goes on as if it had not been interrupted."""
    trials = run(MixedProposer(SPACE, ascent=LIGHT), count, seed=1)
    states = [MIXED[place % len(MIXED)] for place in range(count)]
    trials = [
        trial(one.number, one.design, one.mrr if state is TrialState.COMPLETED else None, state, one.origin)
        for one, state in zip(trials, states, strict=True)
    ]
    expected = MixedProposer(SPACE, ascent=LIGHT).propose(trials, seed=7)
    for seed in range(2):
        torch.manual_seed(seed)
        shuffled = random.Random(seed).sample(trials, count)
        found = MixedProposer(SPACE, ascent=LIGHT).propose(shuffled, seed=7)
        assert (found.design, found.origin, found.seeds) == (expected.design, expected.origin, expected.seeds)
    assert MixedProposer(SPACE, ascent=LIGHT).propose(trials, seed=8).design != expected.design


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"model.bottleneck": [8, 16]}, 16),
        ({"model.causal_expert": ["bottleneck", "none"]}, 12),
    ],
)
def test_every_design_of_a_small_space_is_proposed(settings: dict[str, object], size: int) -> None:
    proposer, trials = MixedProposer(space_of(settings, layers=1), ascent=LIGHT), list[Trial]()
    while len(by_design(trials)) < size:
        proposal = proposer.propose(trials, seed=0)
        assert (proposal.design in by_design(trials)) == (proposal.origin is Origin.REPLICATION)
        mrr = 0.05 + 0.01 * sum(proposal.architecture.bits) if len(trials) % 3 == 0 else None
        state = TrialState.FAILED if mrr is None else TrialState.COMPLETED
        seed = (proposal.seeds or (0,))[0]
        trials.append(trial(len(trials), proposal.design, mrr, state, proposal.origin, seed))
        assert len(trials) < 2 * size, "it comes to an end"
    with pytest.raises(SpaceExhausted, match=f"all {size} designs"):
        proposer.propose(trials, seed=0)


def test_whole_numbers_with_very_many_values_are_drawn_without_repetition() -> None:
    """Between two of them a quasi-random point is rounded."""
    space = space_of(
        {"training.sampled_items": {"low": 1, "high": 40}, "model.causal_expert": ["none", "lora"]}, layers=1
    )
    trials = run_unscored(MixedProposer(space, initial_trials=60), 60)
    assert len({one.design for one in trials}) == 60
    assert {type(dict(one.design.settings)["training.sampled_items"]) for one in trials} == {int}


def run_unscored(proposer: MixedProposer, count: int) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(count):
        proposal = proposer.propose(trials, seed=0)
        trials.append(trial(number, proposal.design, state=TrialState.RUNNING, origin=proposal.origin))
    return trials


def test_a_whole_search_confirms_its_best_designs_with_their_settings() -> None:
    method = search_method(SPACE, BudgetConfig(trials=18, confirmation_share=0.5))
    assert isinstance(method.search, MixedProposer)
    light = ConfirmingProposer(MixedProposer(SPACE, ascent=LIGHT), method.trials, method.confirmation)
    trials = run(light, 18, seed=0, deviation=0.01)
    confirmed = [one for one in trials if one.origin is Origin.CONFIRMATION]
    assert [one.origin for one in trials[9:]] == [Origin.CONFIRMATION] * 9
    assert {len(group) for group in by_design(confirmed).values()} == {3}
    assert confirmed[0].design == SPACE.fixed_design
    assert set(by_design(confirmed)) <= set(by_design(trials[:9]))
    best = best_trial(trials)
    assert best in confirmed


def test_with_a_second_objective_the_best_of_every_size_is_tried_and_confirmed() -> None:
    """Width 32 is the best, and smaller ones are worth a look all the same."""

    def size(settings: Mapping[str, Value]) -> int:
        return 100 + int(settings["model.bottleneck"] or 0)

    budget = BudgetConfig(trials=18, confirmation_share=1 / 3)
    method = search_method(SPACE, budget, cost=parameter_cost(SPACE, size)[0])
    assert isinstance(method.search, MixedProposer)
    inner = replace(method.search, ascent=LIGHT)
    trials = run(replace(method, search=inner), 18, seed=0)
    searched = [one for one in trials if one.origin is not Origin.CONFIRMATION]
    ranked = inner.ranking(searched)
    alone = MixedProposer(SPACE).ranking(searched)
    assert sorted(map(str, ranked)) == sorted(map(str, alone))
    assert ranked[0] == alone[0], "the best comes first either way"
    widths = [int(dict(design.settings)["model.bottleneck"] or 0) for design in ranked[:2]]
    assert widths[1] < widths[0], "then a smaller one, which adds the most"
    confirmed = list(by_design(one for one in trials if one.origin is Origin.CONFIRMATION))
    assert confirmed == [SPACE.fixed_design, *[design for design in ranked if design != SPACE.fixed_design][:2]]


def test_without_settings_the_search_is_the_one_over_architectures() -> None:
    budget = BudgetConfig(trials=9)
    method = search_method(space_of({}), budget)
    assert method == search_method(DesignSpace(DamoeSpace(2)), budget)
    assert method.search == AxProposer(DamoeSpace(2), budget.initial_trials)


def test_trials_of_another_space_are_refused() -> None:
    with pytest.raises(ValueError, match="should have values for"):
        MixedProposer(SPACE).propose([trial(0, "000-000-000")], seed=0)


def test_a_design_that_is_trained_again_is_the_design_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its level gives 1e-3 back as 0.0010000000000000002, which would be another design with the same seed."""
    config = {"data": {"name": "x"}, "training": {"learning_rate": 1e-3}}
    rate = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}, "model.bottleneck": [16, 64]}
    space = DesignSpace.of(from_dict({**config, "search": {"settings": rate}}, "test"), 2)
    fixed = space.fixed_design
    (level,) = points_of(space, [fixed])
    assert space.design(space.mixed.setting(level.tolist())) != fixed, "or there is nothing to test"
    values = iter([0.3, 0.1, 0.2, 0.15])
    trials: list[Trial] = []
    for _ in range(4):
        proposal = MixedProposer(space, initial_trials=4).propose(trials, seed=0)
        trials.append(trial(len(trials), proposal.design, next(values), origin=proposal.origin, seed=0))
    monkeypatch.setattr(Evidence, "points", lambda *_, **__: iter([level]))
    proposal = MixedProposer(space, initial_trials=4).propose(trials, seed=0)
    assert (proposal.design, proposal.origin, proposal.seeds) == (fixed, Origin.REPLICATION, (1,))
