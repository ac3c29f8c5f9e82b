"""PR as the generation strategy of an Ax experiment that is not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generators.torch.botorch_modular.surrogate import Surrogate

from mixrec_automl.search.ax_proposer import generation_strategy

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


@pytest.mark.parametrize("has_errors", [True, False])
def test_ax_finds_the_best_of_4096_designs_with_it(has_errors: bool) -> None:
    client = Client()
    client.configure_experiment(
        [RangeParameterConfig(name=f"bit_{place}", parameter_type="int", bounds=(0, 1)) for place in range(12)]
    )
    client.configure_optimization("score")
    client.set_generation_strategy(generation_strategy(initial_trials=6, seed=2))
    tried = []
    for _ in range(30):
        [(index, parameters)] = client.get_next_trials(max_trials=1).items()
        bits = [int(parameters[f"bit_{place}"]) for place in range(12)]
        tried.append(tuple(bits))
        score = sum((1 + place) * bit for place, bit in enumerate(bits)) / 78 - 0.5 * (bits[0] * bits[11])
        client.complete_trial(index, {"score": (score, 0.001) if has_errors else score})
    assert len(set(tried)) == 30
    best = max(sum((1 + p) * b for p, b in enumerate(bits)) / 78 - 0.5 * (bits[0] * bits[11]) for bits in tried)
    assert best == pytest.approx(77 / 78)


def asked(client: Client, rounds: Sequence[int]) -> list[tuple[int, ...]]:
    """Designs that `client` gives in so many trials at a time, none of which ends."""
    return [
        tuple(int(parameters[f"bit_{place}"]) for place in range(8))
        for number in rounds
        for parameters in client.get_next_trials(max_trials=number).values()
    ]


def begun(bits: int = 8, trials: int = 6) -> tuple[Client, GenerationStrategy]:
    """With so many completed trials."""
    client, strategy = Client(), generation_strategy(initial_trials=trials, seed=5)
    client.configure_experiment(
        [RangeParameterConfig(name=f"bit_{place}", parameter_type="int", bounds=(0, 1)) for place in range(bits)]
    )
    client.configure_optimization("score")
    client.set_generation_strategy(strategy)
    for number, parameters in client.get_next_trials(max_trials=trials).items():
        client.complete_trial(
            number, {"score": sum((1 + place) * int(bit) for place, bit in enumerate(parameters.values()))}
        )
    return client, strategy


def test_trials_asked_for_together_are_those_asked_for_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ax extends what is pending between the trials of one call, and fits once for all of them."""
    fits = []
    fit = Surrogate.fit

    def counted(*given: Any, **named: Any) -> None:
        fits.append(1)
        fit(*given, **named)

    monkeypatch.setattr(Surrogate, "fit", counted)
    together = asked(begun()[0], [3])
    assert len(fits) == 1
    assert asked(begun()[0], [1, 1, 1]) == together
    assert len(set(together)) == 3


def test_a_batch_trial_has_the_same_designs() -> None:
    client, strategy = begun()
    [[run]] = strategy.gen(client._experiment, n=3)
    designs = [tuple(int(arm.parameters[f"bit_{place}"]) for place in range(8)) for arm in run.arms]
    assert designs == asked(begun()[0], [3])


def test_a_batch_trial_ends_with_the_space() -> None:
    client, strategy = begun(bits=2, trials=2)
    [[run]] = strategy.gen(client._experiment, n=5)
    assert len(run.arms) == 2
