import random

import pytest

from mixrec_automl.search.noise import PRIOR_WEIGHT, RELATIVE_DEVIATION, training_seed_variance
from mixrec_automl.store.records import TrialState
from tests.mixrec_automl.search.trials import trial


def test_without_replicates_the_level_is_the_measured_share_of_mrr() -> None:
    trials = [trial(0, "000", mrr=0.03), trial(1, "001", mrr=0.05), trial(2, "010", mrr=0.06)]
    trials += [trial(3, "011", state=TrialState.FAILED), trial(4, "100", state=TrialState.RUNNING)]
    assert training_seed_variance(trials) == pytest.approx((RELATIVE_DEVIATION * 0.05) ** 2)


def test_two_replicates_move_the_level_by_their_weight() -> None:
    trials = [trial(0, "000", mrr=0.049), trial(1, "000", mrr=0.051)]
    default = (RELATIVE_DEVIATION * 0.05) ** 2
    assert training_seed_variance(trials) == pytest.approx((PRIOR_WEIGHT * default + 2e-6) / (PRIOR_WEIGHT + 1))


def test_many_replicates_give_the_variance_they_have() -> None:
    draw = random.Random(0)
    trials = [trial(i, format(i % 8, "03b"), mrr=0.05 + 0.01 * (i % 8) + draw.gauss(0, 0.004)) for i in range(800)]
    assert training_seed_variance(trials) == pytest.approx(0.004**2, rel=0.15)


def test_the_level_is_positive_whatever_the_scores() -> None:
    assert training_seed_variance([]) > 0
    assert training_seed_variance([trial(0, "000", mrr=0.0), trial(1, "000", mrr=0.0)]) > 0
