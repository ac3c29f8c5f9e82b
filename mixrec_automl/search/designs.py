"""What every method that proposes designs has in common: which come before those that it makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.proposer import Proposal, SpaceExhausted
from mixrec_automl.search.threads import one_thread
from mixrec_automl.store.records import Origin, Trial, by_design, scores
from search_spaces.design import Design

NOISE_FROM = 10
"""Completed designs; one training more is then a small part of the budget."""

Seen = Mapping[Design, Sequence[Trial]]
"""The trials of each design that has any"""
Made = tuple[Design, Origin, str]
"""A design, who made it, and the covariance of the surrogate that was asked; empty where none was"""


def next_proposal(
    space: DesignSpace,
    initial_trials: int,
    trials: Sequence[Trial],
    make: Callable[[Seen], Made],
    taken_over: Sequence[Design] = (),
) -> Proposal:
    """The fixed design first, then those `taken_over`, once a training again that measures the noise, else what `make`
    answers: a new design, or a known one that is to be trained again.

    Args:
        initial_trials: designs before the noise is measured, as before the surrogate takes over.
        taken_over: from another search.

    Raises:
        SpaceExhausted: all designs of `space` have been proposed.
        ValueError: a trial is of another space.
    """
    began, kernel = time.perf_counter(), ""
    seen = by_design(trials)
    for design in seen:
        space.check(design)
    if len(seen) >= space.size:
        raise SpaceExhausted(f"all {space.size:,.0f} designs of the search space have been proposed")
    waiting = next((design for design in taken_over if design not in seen), None)
    probe = noise_probe(seen) if len(seen) >= initial_trials else None
    if space.fixed_design not in seen:
        design, origin = space.fixed_design, Origin.FIXED
    elif waiting is not None:
        design, origin = waiting, Origin.WARM_START
    elif probe is not None:
        design, origin = probe, Origin.REPLICATION
    else:
        with one_thread():
            design, origin, kernel = make(seen)
    if design not in seen:
        return Proposal(design, origin, time.perf_counter() - began, kernel)
    if origin not in (Origin.PROBABILISTIC_REPARAMETERIZATION, Origin.REPLICATION):
        raise AssertionError(f"{design} was proposed twice")
    further = 1 + max(trial.seed for trial in seen[design])
    return Proposal(design, Origin.REPLICATION, time.perf_counter() - began, kernel, seeds=(further,))


def noise_probe(seen: Seen) -> Design | None:
    """The design to train again so that the noise between training seeds is measured, and not only presumed.

    The first of all that were completed, which no score has chosen, once `NOISE_FROM` designs are, or the next one
    where its second training failed. None before, and where any design has been trained twice, or is about to be. With
    a presumed level that is too low nothing would ever be replicated, and the level never corrected.
    """
    completed = [design for design, group in seen.items() if scores(group)]
    again = [group for group in seen.values() if len(group) > 1]
    is_known = any(len(scores(group)) > 1 or not all(trial.state.is_final for trial in group) for group in again)
    if len(completed) < NOISE_FROM or is_known:
        return None
    return next((design for design in completed if len(seen[design]) == 1), None)
