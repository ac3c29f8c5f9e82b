"""The Pareto front of a search: the designs of which no other one of at most their size is expected to be better.

What is expected of a design is the mean of its trainings, moved towards the median of all designs by as much as luck
may be in it: the posterior mean of a normal model whose two variances, between designs and between training seeds, are
estimated from the trials (empirical Bayes; Efron and Morris, Data Analysis Using Stein's Estimator, 1975). Without
that, the front of a noisy search is made of designs that were lucky once, and those that were trained again are not on
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from mixrec_automl.cluster.training import TRAINABLE_PARAMETERS
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.store.records import Origin, Trial, by_design, scores
from search_spaces.design import Design


@dataclass(frozen=True)
class Efficient:
    """One design of the front."""

    design: Design
    trainable_parameters: int
    expected_mrr: float
    mean_mrr: float
    """Over its trainings"""
    trials: tuple[int, ...]
    """Numbers of these"""
    best_trial: int
    """The one of the highest MRR"""
    is_confirmed: bool
    """Whether it was trained again with new seeds at the end; else luck may have put it here"""


def pareto_front(trials: Iterable[Trial]) -> list[Efficient]:
    """By size, the smallest first: each has a higher expected MRR than all designs that are as small or smaller.

    Args:
        trials: of a search, in any state; those without a size are left out.
    """
    completed = [one for one in trials if scores([one])]
    expected, known = expected_mrr(completed), []
    for design, done in by_design(completed).items():
        size = next((one.metrics[TRAINABLE_PARAMETERS] for one in done if TRAINABLE_PARAMETERS in one.metrics), None)
        if size is None:
            continue
        known.append(
            Efficient(
                design,
                int(size),
                expected[design],
                fmean(scores(done)),
                tuple(one.number for one in done),
                max(done, key=lambda one: one.mrr or 0.0).number,
                any(one.origin is Origin.CONFIRMATION for one in done),
            )
        )
    front: list[Efficient] = []
    for one in sorted(known, key=lambda own: (own.trainable_parameters, -own.expected_mrr)):
        if not front or one.expected_mrr > front[-1].expected_mrr:
            front.append(one)
    return front


def expected_mrr(trials: Sequence[Trial]) -> dict[Design, float]:
    """Of each design of `trials`, which are all completed.

    The mean of n trainings is weighted with b / (b + s / n), b being the variance between designs and s that between
    training seeds; the median of all designs has the rest. Designs that have collapsed must not decide how far the
    others are apart, so b comes from those above the median; nor must many that are alike hide that a few are better.
    """
    of_design = {design: scores(replicates) for design, replicates in by_design(trials).items()}
    means = {design: fmean(own) for design, own in of_design.items()}
    if len(means) < 2:
        return means
    between_seeds = training_seed_variance(trials)
    by_luck = fmean(between_seeds / len(own) for own in of_design.values())
    centre, expected = median(means.values()), {}
    above = [(mean - centre) ** 2 for mean in means.values() if mean > centre]
    between_designs = max(fmean(above) - by_luck, 0.0) if above else 0.0
    for design, own in of_design.items():
        weight = between_designs / (between_designs + between_seeds / len(own))
        expected[design] = centre + weight * (means[design] - centre)
    return expected
