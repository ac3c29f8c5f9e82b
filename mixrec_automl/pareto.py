"""The Pareto front of a search: the designs that no other one of at most their size has beaten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from mixrec_automl.cluster.training import TRAINABLE_PARAMETERS
from mixrec_automl.store.records import Origin, Trial, by_design, scores
from search_spaces.design import Design


@dataclass(frozen=True)
class Efficient:
    """One design of the front."""

    design: Design
    trainable_parameters: int
    mrr: float
    """Mean over its trainings"""
    trials: tuple[int, ...]
    """Numbers of these"""
    best_trial: int
    """The one of the highest MRR"""
    is_confirmed: bool
    """Whether it was trained again with new seeds at the end; else luck may have put it here"""


def pareto_front(trials: Iterable[Trial]) -> list[Efficient]:
    """By size, the smallest first: each has a higher mean MRR than all designs that are as small or smaller.

    Args:
        trials: of a search, in any state; those without a size are left out.
    """
    known = []
    for design, replicates in by_design(trials).items():
        done = [one for one in replicates if scores([one]) and TRAINABLE_PARAMETERS in one.metrics]
        if done:
            known.append(
                Efficient(
                    design,
                    int(done[0].metrics[TRAINABLE_PARAMETERS]),
                    fmean(scores(done)),
                    tuple(one.number for one in done),
                    max(done, key=lambda one: one.mrr or 0.0).number,
                    any(one.origin is Origin.CONFIRMATION for one in done),
                )
            )
    front: list[Efficient] = []
    for one in sorted(known, key=lambda own: (own.trainable_parameters, -own.mrr)):
        if not front or one.mrr > front[-1].mrr:
            front.append(one)
    return front
