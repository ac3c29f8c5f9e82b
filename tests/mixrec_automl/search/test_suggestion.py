"""Bayesian optimisation over mixed spaces, for others' loops."""

from __future__ import annotations

import random

import pytest
import torch

from mixrec_automl.search.kernels import Columns
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.suggestion import Observed, relaxation_of, suggest
from mixrec_automl.search.surrogate import fit, noise_of
from search_spaces.mixed import Categorical, Integer, MixedSpace, Real, Setting

SPACE = MixedSpace(
    (
        Categorical("kind", ("a", "b", "c")),
        Categorical("is_on", (False, True)),
        Integer("layers", 1, 6),
        Real("rate", 1e-4, 1e-1, log=True),
    )
)


def score(setting: Setting) -> float:
    """Best at b, on, 4 layers and a rate of 1e-2: 1."""
    distance = float(torch.log10(torch.tensor(float(setting["rate"]))) + 2)  # type: ignore[arg-type]
    return (
        {"a": 0.0, "b": 0.4, "c": 0.2}[str(setting["kind"])]
        + 0.2 * bool(setting["is_on"])
        + 0.4
        - 0.05 * (int(setting["layers"]) - 4) ** 2  # type: ignore[arg-type]
        - 0.2 * distance**2
    )


def run(budget: int, seed: int, noise: float = 0.0, noise_variance: float | None = None) -> list[Observed]:
    draw, history = random.Random(seed), []
    for _ in range(budget):
        setting = suggest(SPACE, history, seed=seed + len(history), noise_variance=noise_variance)
        history.append(Observed(setting, score(setting) + draw.gauss(0, noise)))
    return history


@pytest.mark.parametrize("seed", [10, 20, 30])
def test_25_evaluations_of_a_mixed_space_come_close_to_its_optimum(seed: int) -> None:
    history = run(25, seed)
    best = max(score(one.setting) for one in history)
    draw = random.Random(seed)
    by_chance = max(
        score(SPACE.setting([draw.randrange(3), draw.randrange(2), draw.randrange(6), draw.random()]))
        for _ in range(25)
    )
    assert best > 0.97
    assert best >= by_chance
    assert len({tuple(one.setting.items()) for one in history}) == 25, "none twice, as no noise is known"


def test_with_a_known_noise_settings_are_evaluated_again() -> None:
    history = run(30, seed=1, noise=0.3, noise_variance=0.09)
    assert len({tuple(one.setting.items()) for one in history}) < 30
    assert len({tuple(one.setting.items()) for one in run(12, seed=1, noise_variance=1e-9)}) == 12


def test_the_answer_hangs_on_history_and_seed_alone() -> None:
    history = run(7, seed=3)
    torch.manual_seed(0)
    first = suggest(SPACE, history, seed=5)
    torch.manual_seed(1)
    assert suggest(SPACE, history, seed=5) == first
    assert suggest(SPACE, [], seed=5) != suggest(SPACE, [], seed=6)


def test_what_is_pending_or_failed_is_not_suggested_again() -> None:
    space = MixedSpace((Categorical("x", tuple(range(4))), Categorical("y", (0, 1))))
    history: list[Observed] = []
    for place in range(8):
        setting = suggest(space, history, seed=2, initial=3)
        value = None if place % 3 == 2 else float(sum(map(int, setting.values())))  # type: ignore[arg-type]
        history.append(Observed(setting, value, is_pending=value is None and place > 3))
    assert len({tuple(one.setting.items()) for one in history}) == 8
    with pytest.raises(SpaceExhausted):
        suggest(space, history, seed=2, initial=3)


def test_constraints_hold_from_the_first_suggestion_on() -> None:
    space = MixedSpace(SPACE.parameters, (lambda setting: setting["kind"] != "b", lambda s: int(s["layers"]) < 4))  # type: ignore[arg-type]
    history: list[Observed] = []
    for place in range(12):
        setting = suggest(space, history, seed=place, initial=4)
        assert space.allows(setting)
        history.append(Observed(setting, score(setting)))
    assert max(one.value or 0 for one in history) == pytest.approx(0.75, abs=0.05), "c, on, 3 layers"


@pytest.mark.parametrize(("bits", "ones"), [(16, 1), (20, 2), (24, 3)])
def test_what_few_settings_meet_is_found_before_the_first_outcome(bits: int, ones: int) -> None:
    """Of 24 bits 2,024 of 16.8 million settings have three ones."""
    parameters = tuple(Categorical(f"b{place}", (0, 1)) for place in range(bits))
    space = MixedSpace(parameters, (lambda setting: sum(setting.values()) == ones,))  # type: ignore[arg-type]
    for seed in range(2):
        assert sum(suggest(space, [], seed=seed).values()) == ones  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_a_corner_of_a_continuous_space_is_found_and_an_empty_one_is_exhausted(seed: int) -> None:
    parameters = (Real("x", 0, 1), Real("y", 0, 1), Categorical("is_on", (False, True)))
    corner = MixedSpace(parameters, (lambda s: s["x"] + s["y"] <= 0.1,))  # type: ignore[operator]
    places = [(0.01 * place, 0.05 - 0.01 * place) for place in range(5)]
    history = [Observed({"x": x, "y": y, "is_on": place % 2 == 0}, x - y) for place, (x, y) in enumerate(places)]
    found = suggest(corner, history, seed=seed)
    assert corner.allows(found)
    assert found not in [one.setting for one in history]
    nothing = MixedSpace(parameters, (lambda _: False,))
    with pytest.raises(SpaceExhausted):
        suggest(nothing, history, seed=seed)


def test_an_integer_of_many_values_comes_once_each_until_there_is_none() -> None:
    space = MixedSpace((Integer("n", 0, 40),))
    history: list[Observed] = []
    for _ in range(41):
        setting = suggest(space, history, seed=len(history))
        history.append(Observed(setting, -((int(setting["n"]) - 27) ** 2) / 100))  # type: ignore[arg-type]
    tried = [one.setting["n"] for one in history]
    assert sorted(tried) == list(range(41))  # type: ignore[type-var]
    assert tried.index(27) < 15
    with pytest.raises(SpaceExhausted, match="all 41"):
        suggest(space, history, seed=0)


def test_a_value_that_is_no_finite_number_is_refused_with_its_setting() -> None:
    with pytest.raises(ValueError, match=r"'n': 3.* nan: give None"):
        Observed({"n": 3}, float("nan"))


def test_a_setting_of_another_space_is_refused() -> None:
    with pytest.raises(ValueError, match="layers"):
        suggest(SPACE, [Observed({**SPACE.setting([0, 0, 0, 0.5]), "layers": 9}, 0.5)], seed=0)


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0.0, 0.03), (1.0, 0.15, 0.8)])
def test_the_noise_level_is_found_from_the_values(noise: float, low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(0)
    relaxation = relaxation_of(SPACE)
    draws = torch.rand(60, 4, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2.0, 6.0, 1.0])
    known = torch.cat([draws[:, :3].floor(), draws[:, 3:]], dim=1).double()
    truth = torch.tensor([score(SPACE.setting(row)) for row in known.tolist()], dtype=torch.float64)
    values = truth + noise * truth.std() * torch.randn(60, generator=generator, dtype=torch.float64)
    surrogate = fit(relaxation.features(known), values, None, relaxation.columns)
    assert low <= float(noise_of(surrogate)[0]) <= high, "a share of the values' variance"


def test_features_of_bits_are_the_bits_and_two_values_are_one_apart() -> None:
    relaxation = relaxation_of(SPACE)
    points = torch.tensor([[0, 1, 5, 0.25], [2, 0, 0, 1.0], [1, 1, 5, 0.25]], dtype=torch.float64)
    features = relaxation.features(points)
    assert relaxation.columns == Columns(bits=1, nominal=(3,), numeric=2)
    assert features[:, 0].tolist() == [1, 0, 1]
    assert features[:, -2:].tolist() == [[1, 0.25], [0, 1], [1, 0.25]]
    assert float((features[0] - features[2]).square().sum()) == pytest.approx(1.0)
