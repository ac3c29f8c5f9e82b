"""What the surrogate of a search says of its space, for people: effects of bits and pairs, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from botorch.utils.sampling import manual_seed
from torch import Tensor

from mixrec_automl.search.batch import Beliefs
from mixrec_automl.search.effects import Effect, effects_of_bits, effects_of_pairs
from mixrec_automl.search.encoding import bits_of, of_bits
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.surrogate import DesignSurrogate, leave_one_out
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
class Path:
    """How PR comes to a new design: on the surrogate of all trials, as if none of them ran and without a warm start."""

    design: tuple[int, ...]
    theta: tuple[tuple[float, ...], ...]
    """Probability that each bit is 1, before the first step of the ascent and after each; of the restart that ends
    nearest to the design, which was drawn there or not far from it"""
    arrived: int
    """Restarts that end at the design, every bit of it being the more likely one"""
    restarts: int


@dataclass(frozen=True)
class Explanation:
    """Of a search over bits alone."""

    effects: list[Effect]
    """Of each bit"""
    pairs: list[Effect]
    """Of all pairs, the largest first"""
    calibration: Calibration | None
    next: Path | None
    """None where every design has been proposed"""


def explain(trials: Sequence[Trial], bits: int) -> Explanation | None:
    """By a surrogate of the completed `trials` of a search over `bits` bits; None where they do not allow one."""
    designs = by_design(trials)
    groups = [own for group in designs.values() if (own := scores(group))]
    if len(groups) < LEAST_COMPLETED or len({score for group in groups for score in group}) < 2:
        return None
    with one_thread(), manual_seed(0):
        surrogate = fit_trials(trials, of_bits(bits))
        effects, pairs = effects_of_bits(surrogate, bits), effects_of_pairs(surrogate, bits)
        calibration = None
        if len(groups) >= FEWEST_CALIBRATED:
            predicted, deviation = leave_one_out(surrogate)
            observed = surrogate.outcome_transform.untransform(surrogate.train_targets[:, None])[0][:, 0]
            calibration = Calibration(tuple(observed.tolist()), tuple(predicted.tolist()), tuple(deviation.tolist()))
        observed_designs = [design for design, group in designs.items() if scores(group)]
        path = _path(surrogate, bits_of(observed_designs), bits_of(list(designs)))
    return Explanation(effects, pairs, calibration, path)


def _path(surrogate: DesignSurrogate, observed: Tensor, taken: Tensor) -> Path | None:
    """Of the ascent that would follow the search.

    Args:
        observed: designs with a score, [any, bits].
        taken: those that have been proposed, [any, bits].
    """
    relaxation, ascent = Relaxation.of_bits(observed.shape[1]), Ascent()
    try:
        point, phi = Beliefs(relaxation, surrogate, observed).watched(taken, ascent, seed=0)
    except SpaceExhausted:
        return None
    theta = torch.stack([relaxation.upper(step, ascent.temperature) for step in phi])  # [steps + 1, restarts, bits]
    likely = torch.where(point == 1, theta[-1], 1 - theta[-1])
    nearest = int(likely.log().sum(dim=1).argmax())
    arrived = int((likely > 0.5).all(dim=1).sum())
    bits = tuple(int(bit) for bit in point.tolist())
    return Path(bits, tuple(map(tuple, theta[:, nearest].tolist())), arrived, theta.shape[1])
