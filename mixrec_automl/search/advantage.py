"""By how much the winner of a search beats the fixed design, with an interval that knows it was chosen.

Only the trainings of the confirmation count: each of k designs and the fixed one, with the same new training seeds. Of
the model y = design + seed + error, errors normal and alike, the differences to the fixed design have a joint
multivariate t distribution; Dunnett, A Multiple Comparison Procedure for Comparing Several Treatments with a Control
(JASA 1955), gives the one width with which all k intervals hold at once. So the interval of whichever is declared the
winner holds as well.

It speaks of training seeds. All designs are scored on the same users, and what other users would say is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from scipy import integrate, optimize, special, stats

from mixrec_automl.store.records import Origin, Trial, TrialState, best_trial, fixed_design
from search_spaces.design import Design

LEVEL = 0.95


@dataclass(frozen=True)
class Advantage:
    """In validation MRR, design minus fixed design."""

    design: Design
    difference: float
    low: float
    high: float
    """Ends of the interval, which holds for all `compared` designs at once with probability `LEVEL`"""
    seeds: int
    compared: int
    """k: designs beside the fixed one"""


@lru_cache
def dunnett_quantile(compared: int, freedom: int, level: float = LEVEL) -> float:
    """c with P(max_i |T_i| <= c) = level, T_i being `compared` t variables with correlation 1/2.

    T_i = (Z_i - Z_0) / (sqrt(2) S) with S^2 a chi-squared variable over its degrees of freedom: given Z_0 and S the T_i
    are independent, which leaves an integral over these two.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / math.sqrt(2 * math.pi)

    def given_scale(width: float) -> float:
        each = special.ndtr(width + nodes) - special.ndtr(nodes - width)
        return float(weights @ each**compared)

    def covered(c: float) -> float:
        def integrand(scale: float) -> float:
            density = 2 * freedom * scale * stats.chi2.pdf(freedom * scale**2, freedom)
            return float(density * given_scale(math.sqrt(2) * c * scale))

        upper = 1 + 8 / math.sqrt(2 * freedom)  # beyond, S has no mass that counts
        return float(integrate.quad(integrand, 0, upper, limit=200, points=[min(1.0, 3 / c)])[0])

    return float(optimize.brentq(lambda c: covered(c) - level, 0.5, 2000.0, xtol=1e-6))


def advantage_of_winner(trials: Sequence[Trial]) -> Advantage | None:
    """Of a search's winner over its fixed design; None before its confirmation has ended, and as `advantage`."""
    best, fixed = best_trial(trials), fixed_design(trials)
    if best is None or fixed is None or best.origin is not Origin.CONFIRMATION:
        return None
    return advantage(trials, best.design, fixed)


def advantage(trials: Sequence[Trial], winner: Design, fixed: Design) -> Advantage | None:
    """Of `winner` over `fixed` in the confirmation of a search.

    Returns:
        None where the winner is the fixed design, or where the confirmation does not hold both of them with two
        seeds that all its designs have completed.
    """
    scores: dict[Design, dict[int, float]] = {}
    for trial in trials:
        if trial.origin is Origin.CONFIRMATION and trial.state is TrialState.COMPLETED and trial.mrr is not None:
            scores.setdefault(trial.design, {})[trial.seed] = trial.mrr
    if winner == fixed or winner not in scores or fixed not in scores:
        return None
    seeds = sorted(set.intersection(*(set(of_design) for of_design in scores.values())))
    if len(seeds) < 2:
        return None
    table = np.array([[of_design[seed] for seed in seeds] for of_design in scores.values()])
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    freedom = (len(scores) - 1) * (len(seeds) - 1)
    deviation = math.sqrt(float((residual**2).sum()) / freedom)
    compared = len(scores) - 1
    half = dunnett_quantile(compared, freedom) * deviation * math.sqrt(2 / len(seeds))
    difference = fmean(scores[winner][seed] - scores[fixed][seed] for seed in seeds)
    return Advantage(winner, difference, difference - half, difference + half, len(seeds), compared)
