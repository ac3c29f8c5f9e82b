"""PR as the generation strategy of an Ax experiment that is not ours."""

from __future__ import annotations

import pytest
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig

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
