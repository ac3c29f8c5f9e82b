"""What comes before a method's own proposals."""

from __future__ import annotations

from mixrec_automl.search.designs import NOISE_FROM, noise_probe
from mixrec_automl.store.records import TrialState, by_design
from tests.mixrec_automl.search.trials import trial


def test_the_noise_is_measured_once_and_by_another_design_where_a_training_fails() -> None:
    trials = [trial(number, format(number, "06b"), mrr=0.05) for number in range(NOISE_FROM)]
    designs = list(by_design(trials))
    assert noise_probe(by_design(trials[:-1])) is None
    assert noise_probe(by_design(trials)) == designs[0]

    def again(place: int, number: int, state: TrialState, mrr: float | None = None) -> None:
        trials[NOISE_FROM + place :] = [trial(number, designs[place], mrr, state, seed=1)]

    again(0, 100, TrialState.RUNNING)
    assert noise_probe(by_design(trials)) is None, "its second training may still tell"
    again(0, 100, TrialState.FAILED)
    assert noise_probe(by_design(trials)) == designs[1]
    again(1, 101, TrialState.COMPLETED, 0.051)
    assert noise_probe(by_design(trials)) is None
