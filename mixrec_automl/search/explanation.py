"""What the surrogate of a search says of its space, for people: effects of bits and pairs, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from botorch.utils.sampling import manual_seed

from mixrec_automl.search.effects import Effect, effects_of_bits, effects_of_pairs
from mixrec_automl.search.encoding import of_bits
from mixrec_automl.search.surrogate import leave_one_out
from mixrec_automl.search.threads import one_thread
from mixrec_automl.search.trial_surrogate import LEAST_COMPLETED, fit_trials
from mixrec_automl.store.records import Trial, by_design, scores

FEWEST_CALIBRATED = 5
"""Below so many designs leave-one-out says nothing"""


@dataclass(frozen=True)
class Calibration:
    """What the surrogate would have said of each design without its outcomes, in MRR."""

    observed: tuple[float, ...]
    """Mean of a design's trainings"""
    predicted: tuple[float, ...]
    deviation: tuple[float, ...]
    """Standard deviation of the prediction of such a mean, training noise included"""

    @property
    def share_explained(self) -> float:
        """Of the variance of the outcomes, by predictions that did not know them; below 0: worse than their mean."""
        centre = sum(self.observed) / len(self.observed)
        missed = sum((one - other) ** 2 for one, other in zip(self.observed, self.predicted, strict=True))
        return 1 - missed / sum((one - centre) ** 2 for one in self.observed)

    def covered(self, width: float) -> int:
        """How many outcomes lie within `width` standard deviations of their prediction."""
        rows = zip(self.observed, self.predicted, self.deviation, strict=True)
        return sum(abs(one - other) <= width * deviation for one, other, deviation in rows)


@dataclass(frozen=True)
class Explanation:
    """Of a search over bits alone."""

    effects: list[Effect]
    """Of each bit"""
    pairs: list[Effect]
    """Of all pairs, the largest first"""
    calibration: Calibration | None


def explain(completed: Sequence[Trial], bits: int) -> Explanation | None:
    """By a surrogate of the completed trials of a search over `bits` bits; None where they do not allow one."""
    groups = [scores(group) for group in by_design(completed).values()]
    if len(groups) < LEAST_COMPLETED or len({score for group in groups for score in group}) < 2:
        return None
    with one_thread(), manual_seed(0):
        surrogate = fit_trials(completed, of_bits(bits))
        effects, pairs = effects_of_bits(surrogate, bits), effects_of_pairs(surrogate, bits)
        calibration = None
        if len(groups) >= FEWEST_CALIBRATED:
            predicted, deviation = leave_one_out(surrogate)
            observed = surrogate.outcome_transform.untransform(surrogate.train_targets[:, None])[0][:, 0]
            calibration = Calibration(tuple(observed.tolist()), tuple(predicted.tolist()), tuple(deviation.tolist()))
    return Explanation(effects, pairs, calibration)
