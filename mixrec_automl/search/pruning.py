"""Which running trial to give up, judged by its learning curve: pure functions of what is recorded.

A curve is a trial's validation MRR after each epoch. A trial's result is its best epoch, so the best value so far
stands for it everywhere, and can only rise.

Two rules, both for scores of which more is better:

- *Median stopping rule* (Golovin et al., "Google Vizier", KDD 2017, section 3.2): a trial is given up after epoch k if
  its best value so far is strictly below the median of the running averages up to epoch k of all completed trials. That
  is the rule of the source, without change: a trial that was pruned does not count among the others.
- *Asynchronous successive halving* (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020), in
  the stopping variant of Ray Tune and Syne Tune. The rungs are the epochs r, r eta, r eta^2, ... On reaching one, a
  trial goes on if it is among the best floor(n / eta) of the n that have reached it so far, itself included, or while n
  is below eta. In the paper the others are paused and may be promoted later; here they are given up for good, for a
  paused trial would neither run nor have ended. The number that goes on is the paper's; Ray Tune takes a quantile.

Before either, a *gate*: at an epoch nothing is given up until completed trials have shown that it foretells the end. It
asks for the rank correlation (Spearman) between the best value up to that epoch and the final one, over one completed
trial of each design, with a lower confidence bound above `search.pruning.min_rank_correlation`.

What the gate cannot tell:

- Once pruning has begun, completed trials are a selected sample: none of them looked bad early. Over a narrower range
  a correlation comes out lower, so the gate tends to close again rather than to stay open by mistake; but no trial that
  was given up ever shows what it would have reached.
- It is looked at again after every epoch, and the bound holds for one look: some day it may open by chance.
- A final value is at least the best one so far. Where trainings peak early the two correlate for that reason alone;
  rightly, since such trainings gain nothing from going on. One seed of DAMoE-Bench opens the gate so, the other not.
- It is about a trial's own result with its own training seed, not about what the design is worth on average.

What pruning cannot change, and what it can: each score that the surrogate sees is that of a whole training, since a
trial that was given up has none. Which designs have one is selected, though. Where early and final scores share the
luck of a training seed, those that survive are luckier than average: by a quarter of the seed's deviation in the
simulation of `tests/mixrec_automl/search/test_pruned_data.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scipy import stats

from mixrec_automl.search_config import PruningConfig
from mixrec_automl.store.records import Observation, Origin, Trial, TrialState, by_design, replicates_of

METRIC = "validation_mrr"
"""Of an epoch's metrics: the one whose best value is a trial's result"""
LEVEL = 0.95
"""Of the gate's one-sided confidence bound"""
LARGEST_CORRELATION = 1 - 1e-12
"""Fisher's transformation of 1 is infinite"""

Curve = Mapping[int, float]
"""Validation MRR by epoch, from 1"""


def curves_of(observations: Iterable[Observation]) -> dict[int, dict[int, float]]:
    """The curve of each trial that has one, by number; of an epoch that several attempts trained, the last report."""
    curves: dict[int, dict[int, float]] = {}
    for seen in sorted(observations, key=lambda seen: (seen.trial, seen.attempt, seen.epoch)):
        if METRIC in seen.metrics:
            curves.setdefault(seen.trial, {})[seen.epoch] = seen.metrics[METRIC]
    return curves


@dataclass(frozen=True)
class RankCorrelation:
    """How well the best MRR up to some epoch has foretold the final one."""

    designs: int
    """Completed, one trial of each"""
    value: float
    """Spearman's, between -1 and 1"""
    lower: float
    """One-sided confidence bound at `LEVEL`"""


def rank_correlation(trials: Iterable[Trial], curves: Mapping[int, Curve], epoch: int) -> RankCorrelation | None:
    """Over the first completed trial of each design: means over replicates would be less noisy than the one trial that
    is to be judged. None with nothing to correlate: fewer than four designs, or all early or all late values equal.

    The bound is that of Fisher's transformation with the variance of Bonett and Wright ("Sample size requirements for
    estimating Pearson, Kendall and Spearman correlations", Psychometrika 65, 2000), (1 + value^2 / 2) / (designs - 3).
    It is an approximation, poor for few designs and for correlations near 1; the tests measure how often it holds.
    """
    early, late = [], []
    for replicates in by_design(trials).values():
        completed = (
            trial
            for trial in replicates
            if trial.state is TrialState.COMPLETED and trial.mrr is not None and epoch in curves.get(trial.number, {})
        )
        first = next(completed, None)
        if first is not None and first.mrr is not None:
            early.append(_best_until(curves[first.number], epoch))
            late.append(first.mrr)
    if len(early) < 4 or len(set(early)) == 1 or len(set(late)) == 1:
        return None
    value = float(stats.spearmanr(early, late).statistic)
    within = min(max(value, -LARGEST_CORRELATION), LARGEST_CORRELATION)
    deviation = math.sqrt((1 + within**2 / 2) / (len(early) - 3))
    lower = math.tanh(math.atanh(within) - float(stats.norm.ppf(LEVEL)) * deviation)
    return RankCorrelation(len(early), value, lower)


def may_be_pruned(trial: Trial, trials: Iterable[Trial]) -> bool:
    """Not the fixed design, to which all others are compared: without its score a search says little.

    And no trial of a design that has others, whatever their state. The surrogate is given the mean over the completed
    replicates of a design; if only the unlucky ones were given up, it would be too high.
    """
    return trial.origin is not Origin.FIXED and len(replicates_of(trial, trials)) == 1


def reason_to_prune(
    config: PruningConfig, trial: Trial, epoch: int, trials: Sequence[Trial], curves: Mapping[int, Curve]
) -> str | None:
    """Why `trial` is to be given up after `epoch`, in words; None: it goes on.

    Args:
        trials: all of the search, `trial` among them.
        curves: up to now, of each trial that has one, by number.
    """
    curve = curves.get(trial.number, {})
    if config.rule == "none" or epoch < config.min_epochs or epoch not in curve or not may_be_pruned(trial, trials):
        return None
    best = _best_until(curve, epoch)
    reason = None
    if config.rule == "median":
        completed = [
            curves[one.number]
            for one in trials
            if one.state is TrialState.COMPLETED and epoch in curves.get(one.number, {})
        ]
        middle = median_of_averages(completed, epoch)
        if middle is not None and best < middle:
            reason = f"below the median of {len(completed)} trials at epoch {epoch}: {best:.4f} < {middle:.4f}"
    elif is_rung(epoch, config.min_epochs, config.eta):
        reached = [_best_until(one, epoch) for one in curves.values() if epoch in one]
        if not is_among_best(best, reached, config.eta):
            reason = f"not among the best 1/{config.eta} of {len(reached)} trials at epoch {epoch}: {best:.4f}"
    if reason is None:
        return None
    gate = rank_correlation(trials, curves, epoch)
    if gate is None or gate.designs < config.min_trials or gate.lower <= config.min_rank_correlation:
        return None
    return (
        f"{reason} (rank correlation with the end {gate.value:.2f}, at least {gate.lower:.2f}, over {gate.designs} "
        "completed designs)"
    )


def median_of_averages(curves: Sequence[Curve], epoch: int) -> float | None:
    """The median over `curves` of the mean of epochs 1 to `epoch`; None where there are none."""
    averages = [fmean(value for at, value in curve.items() if at <= epoch) for curve in curves]
    return median(averages) if averages else None


def is_rung(epoch: int, min_epochs: int, eta: int) -> bool:
    """Whether `epoch` is `min_epochs` times a power of `eta`, 1 included."""
    rung = min_epochs
    while rung < epoch:
        rung *= eta
    return rung == epoch


def is_among_best(value: float, values: Sequence[float], eta: int) -> bool:
    """Whether fewer than len(values) // eta of `values`, of which `value` is one, are above it; True below eta values.

    Of equals at the edge all are among the best.
    """
    return len(values) < eta or sum(other > value for other in values) < len(values) // eta


def _best_until(curve: Curve, epoch: int) -> float:
    return max(value for at, value in curve.items() if at <= epoch)
