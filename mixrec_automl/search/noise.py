"""How much the validation MRR of one design varies between training seeds: the noise level of the surrogate.

It is not the standard error over users. All trials are scored on the same users, so that error is mostly an offset
common to all of them; given to a Gaussian process it hides nearly all differences between designs. Between training
seeds, MRR of .03 to .06 was measured to vary by .0002 to .002 (standard deviation).

A known level rather than one inferred with the other parameters: in simulation (`benchmarks/surrogate_choice.py`) the
two predict about equally well, also where the known level is wrong by a factor of three, and the known one is several
times cheaper to fit. A level too high is worse than one too low: it smooths differences away.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from mixrec_automl.store.records import Trial, by_design, scores

RELATIVE_DEVIATION = 0.015
"""Standard deviation between seeds over MRR: the geometric middle of what was measured, relative for other data."""
PRIOR_WEIGHT = 2
"""What the value above is worth, in degrees of freedom; each further seed of a design adds one."""
LEAST_DEVIATION = 1e-5


def training_seed_variance(trials: Sequence[Trial]) -> float:
    """Variance of MRR between training seeds of one design.

    Replicates (completed trials of one design) are pooled with the default of `RELATIVE_DEVIATION` times the median
    MRR: the posterior mean scale of a variance under a scaled inverse chi-squared prior.
    """
    groups = [group for replicates in by_design(trials).values() if (group := scores(replicates))]
    everything = [score for group in groups for score in group]
    default = RELATIVE_DEVIATION * abs(median(everything)) if everything else 0.0
    total, weight = PRIOR_WEIGHT * default**2, float(PRIOR_WEIGHT)
    for group in groups:
        centre = fmean(group)
        total += sum((score - centre) ** 2 for score in group)
        weight += len(group) - 1
    return max(total / weight, LEAST_DEVIATION**2)
