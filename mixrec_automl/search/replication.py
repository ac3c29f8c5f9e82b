"""A new design or one more training of a known one: whichever is expected to teach more about which design is best.

Frazier, Powell and Dayanik, The Knowledge-Gradient Policy for Correlated Normal Beliefs (INFORMS Journal on Computing
2009). The knowledge gradient of a training is what it is expected to add to the highest posterior mean, under a
Gaussian process over all designs that could be declared the winner: those trained or in training, and the new one. A
noisy result of a design moves the belief about its neighbours too, so both kinds of training are worth something, in
the same unit. Without noise a replicate is worth nothing and none is made.

Shapes: n designs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixrec_automl.search.budgets import Budgets, Cost
from mixrec_automl.search.surrogate import DesignSurrogate, ordinary_outcome

LEAST_VARIANCE = 1e-300


def expected_maximum_of_lines(intercepts: Tensor, slopes: Tensor) -> float:
    """E[max_i (a_i + b_i Z)] - max_i a_i for Z ~ N(0, 1), exactly: Frazier et al. (2009), algorithms 1 and 2.

    Args:
        intercepts: a, [n].
        slopes: b, [n].
    """
    order = sorted(zip(slopes.tolist(), intercepts.tolist(), strict=True))
    # The upper envelope of the lines, and from where on each of its lines is the highest.
    kept: list[tuple[float, float]] = []
    starts: list[float] = []
    for slope, intercept in order:
        while kept:
            last_slope, last_intercept = kept[-1]
            is_parallel = slope == last_slope  # and not lower, as sorted
            start = -math.inf if is_parallel else (last_intercept - intercept) / (slope - last_slope)
            if start > starts[-1]:
                break
            kept.pop()
            starts.pop()
        else:
            start = -math.inf
        kept.append((slope, intercept))
        starts.append(start)
    # E[max] - max a = the sum over kinks c between lines of (b_next - b) E[max(-|c| + Z, 0)].
    total = 0.0
    for place in range(1, len(kept)):
        kink = -abs(starts[place])
        density = math.exp(-0.5 * kink * kink) / math.sqrt(2 * math.pi)
        below = 0.5 * math.erfc(-kink / math.sqrt(2))
        total += (kept[place][0] - kept[place - 1][0]) * (density + kink * below)
    return total


def after(covariance: Tensor, trained: int, noise_variance: float) -> Tensor:
    """Posterior covariance [n, n] once design `trained` has one more result, whatever that will be."""
    column = covariance[:, trained]
    return covariance - torch.outer(column, column) / (column[trained] + noise_variance)


def knowledge_gradients(
    mean: Tensor, covariance: Tensor, noise_variance: float, budgets: Budgets | None = None
) -> Tensor:
    """What one more training of each design is expected to add to the highest posterior mean, [n].

    Args:
        mean: posterior mean of the noise-free outcome, [n].
        covariance: its posterior covariance, [n, n].
        noise_variance: of one training's outcome, between training seeds.
        budgets: of the designs; with them it is the hypervolume of the posterior means that is to be added to.
    """
    spread = (covariance.diagonal() + noise_variance).clamp_min(LEAST_VARIANCE).sqrt()
    moves = covariance / spread  # column i: how a training of i moves every mean, per standard normal draw
    if budgets is None:
        return torch.tensor([expected_maximum_of_lines(mean, own) for own in moves.T], dtype=mean.dtype)
    gained = torch.zeros_like(mean)
    for width, within in zip(budgets.widths, budgets.affordable, strict=True):
        # The reference is a line as well, which nothing moves.
        heights = torch.cat([mean[within], budgets.reference[None]])
        slopes = torch.cat([moves[within], moves.new_zeros(1, len(mean))])
        gained += width * torch.tensor([expected_maximum_of_lines(heights, own) for own in slopes.T], dtype=mean.dtype)
    return gained


def design_to_train(
    surrogate: DesignSurrogate,
    new: Tensor,
    observed: Tensor,
    pending: Tensor,
    noise_variance: float,
    cost: Cost | None = None,
) -> Tensor:
    """`new`, or the one of the `observed` designs whose replicate has the higher knowledge gradient, [n].

    What is pending will teach as well: its results are taken to come in as expected, and with the variance that they
    will take away.

    Args:
        new: a design that no trial has had, [n].
        observed: distinct designs with a result, [any, n].
        pending: the design of each trial that has none yet, [any, n]; a design may be there several times, and be
            among the observed.
        noise_variance: as `knowledge_gradients`.
        cost: of such designs, where there is a second objective.
    """
    candidates = torch.cat([new[None], observed])
    known = {tuple(row): place for place, row in enumerate(candidates.tolist())}
    for row in pending.tolist():
        known.setdefault(tuple(row), len(known))
    designs = torch.tensor(list(known), dtype=torch.float64)
    with torch.no_grad():
        posterior = surrogate.posterior(designs)
        mean, covariance = posterior.mean[:, 0], posterior.distribution.covariance_matrix
    for row in pending.tolist():
        covariance = after(covariance, known[tuple(row)], noise_variance)
    budgets = None if cost is None else Budgets(cost(designs), ordinary_outcome(surrogate, mean))
    gradients = knowledge_gradients(mean, covariance, noise_variance, budgets)[: len(candidates)]
    return candidates[int(gradients.argmax())]
