"""Probabilistic reparameterization (PR): maximise an acquisition function over a mixed space by gradient ascent.

Daulton et al., Bayesian Optimization over Discrete and Mixed Spaces via Probabilistic Reparameterization (NeurIPS
2022); section 2.3.3 and Algorithm 1 of the MixRec paper. The discrete parameters become independent random variables
(`relaxation.py`), and

    E_{Z ~ p(Z | phi)}[alpha(Z)]

is maximised over phi. Its maximum is that of alpha, at a vertex; unlike alpha it has a gradient. With few points the
expectation is summed over all of them and differentiated; with many it is estimated from samples with the score
function. Continuous parameters are moved along with them, by the gradient of alpha itself. Either way the answer is a
sample of the optimised distributions, never a scan over points.

Shapes: R restarts, S samples, D parameters, P coordinates of phi.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixrec_automl.search.points import Memo, PointSet
from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.relaxation import Relaxation, all_points, exact_expectation

Acquisition = Callable[[Tensor], Tensor]
"""Points [any, D] -> values [any]; differentiable in the continuous columns."""
Feasible = Callable[[Tensor], Tensor]
"""Points [any, D] -> whether each may be proposed, bool [any]."""
Watch = Callable[[Tensor], None]
"""Shown phi [R, P] before the first step and after each; must leave it as it is."""
NEARBY, ANYWHERE = 8, 32
"""How often points are drawn around the optimum, wider each time, and then evenly from the whole space, before no
further one is believed to be there."""


@dataclass(frozen=True)
class Ascent:
    """How the expectation is maximised; `benchmarks/suggestion_cost.py` measures what the defaults cost and reach."""

    exact_points: int = 4096
    """Up to here the expectation is summed exactly: 12 bits."""
    restarts: int = 96
    steps: int = 40
    samples: int = 16
    """Points drawn for each restart: in every step of the Monte Carlo estimate, and for the final choice."""
    learning_rate: float = 0.1
    temperature: float = 0.1
    """tau: at phi = 0 or 1 a bit is certain up to sigmoid(-1 / (2 tau)) = .7 %."""
    depth: float = 12.0
    """Values further below the best one than this are raised to it: log expected improvement has no lower end."""


def score_function_gradient(score: Tensor, values: Tensor) -> Tensor:
    """Unbiased estimate of the gradient of E[alpha(Z)] in phi.

    The baseline of a sample is the mean of the others (leave-one-out), which depends on them alone and so adds no bias.

    Args:
        score: d log p(z | phi) / d phi of each sample, [R, S, P].
        values: alpha of the samples, [R, S].

    Returns:
        [R, P].
    """
    samples = values.shape[1]
    others = (values.sum(dim=1, keepdim=True) - values) / (samples - 1)
    return ((values - others)[:, :, None] * score).mean(dim=1)


def starting_points(good: Tensor, relaxation: Relaxation, ascent: Ascent, generator: torch.Generator) -> Tensor:
    """phi [R, P]: a sixth at good points, a sixth one parameter away from them, the rest uniform."""
    phi = torch.rand(ascent.restarts, len(relaxation.highest), generator=generator, dtype=torch.float64)
    phi *= relaxation.highest
    at_good = min(len(good), ascent.restarts // 6)
    if at_good:
        chosen = good[:at_good].to(torch.float64)
        both = torch.cat([chosen, relaxation.neighbours(chosen, generator)])
        phi[: 2 * at_good] = relaxation.near(both, ascent.temperature)
    return phi


def _ascend(
    phi: Tensor, gradient: Callable[[Tensor], Tensor], relaxation: Relaxation, ascent: Ascent, watch: Watch
) -> Tensor:
    phi = phi.clone()
    watch(phi)
    optimiser = torch.optim.Adam([phi], lr=ascent.learning_rate, maximize=True)
    for _ in range(ascent.steps):
        phi.grad = gradient(phi)
        optimiser.step()
        phi.clamp_min_(0.0)
        phi.copy_(phi.minimum(relaxation.highest))
        watch(phi)
    return phi


def _unwatched(_: Tensor) -> None:
    pass


def ascend_exactly(
    phi: Tensor, values: Tensor, relaxation: Relaxation, ascent: Ascent, watch: Watch = _unwatched
) -> Tensor:
    """Maximise the exact expectation from each start; `values` as in `exact_expectation`."""

    def gradient(point: Tensor) -> Tensor:
        leaf = point.detach().requires_grad_()
        total = exact_expectation(relaxation.probabilities(leaf, ascent.temperature), values).sum()
        return torch.autograd.grad(total, leaf)[0]

    return _ascend(phi, gradient, relaxation, ascent, watch)


def ascend_by_sampling(
    phi: Tensor,
    values_of: Acquisition,
    relaxation: Relaxation,
    ascent: Ascent,
    generator: torch.Generator,
    watch: Watch = _unwatched,
) -> Tensor:
    """Maximise the expectation by Monte Carlo; rewards are scaled to unit spread within each restart."""

    def gradient(point: Tensor) -> Tensor:
        leaf = point.detach().requires_grad_(relaxation.has_continuous)
        points, score = relaxation.sample(leaf, ascent.samples, ascent.temperature, generator)
        rewards = values_of(points.flatten(0, 1)).reshape(points.shape[:2])
        rewards = rewards / rewards.detach().std(dim=1, keepdim=True).clamp_min(1e-9)
        found = score_function_gradient(score, rewards.detach())
        if relaxation.has_continuous:
            found = found + torch.autograd.grad(rewards.mean(dim=1).sum(), leaf)[0]
        return found

    return _ascend(phi, gradient, relaxation, ascent, watch)


def propose_point(
    acquisition: Acquisition,
    relaxation: Relaxation,
    seen: Iterable[Tensor],
    good: Tensor,
    ascent: Ascent,
    seed: int,
    feasible: Feasible | None = None,
    watch: Watch = _unwatched,
) -> tuple[Tensor, float]:
    """The best unseen point that the optimised distributions hold, and its acquisition value.

    Args:
        acquisition: to be maximised.
        relaxation: of the space.
        seen: points that must not be proposed, each [D]; canonical, as the answer is.
        good: points to start from, best first, [any, D]; may be empty.
        ascent: options.
        seed: of all random numbers; the same seed gives the same answer.
        feasible: the constraints of the space, where it has any.
        watch: told of every step of the ascent.

    Raises:
        SpaceExhausted: `seen` holds all points of the space, or no other feasible one was found.
    """
    avoided = PointSet(seen)
    if len(avoided) >= relaxation.size:
        raise SpaceExhausted(f"all {relaxation.size:g} designs of the space have been proposed")
    generator = torch.Generator().manual_seed(seed)
    evaluate = acquisition if relaxation.has_continuous else Memo(acquisition)
    best = -torch.inf

    def legal(points: Tensor) -> Tensor:
        return torch.ones(len(points), dtype=torch.bool) if feasible is None else feasible(points)

    def free(points: Tensor) -> Tensor:
        return ~avoided.contains(points) & legal(points)

    def floored(points: Tensor) -> Tensor:
        nonlocal best
        values, meant = evaluate(points), relaxation.rounded(points.detach())
        within = legal(meant)
        allowed = within & ~avoided.contains(meant)
        if not bool(allowed.any()):
            return 0.0 * points.sum(dim=-1)  # flat, and differentiable like the others
        best = max(best, float(values.detach()[within].max()))
        floor = max(float(values.detach()[allowed].min()), best - ascent.depth)
        return values.masked_fill(~allowed, floor).clamp_min(floor)

    phi = starting_points(good, relaxation, ascent, generator)
    if not relaxation.has_continuous and relaxation.size <= ascent.exact_points:
        every = relaxation.canonical(all_points([factor.levels for factor in relaxation.factors]))
        if not bool(free(every).any()):
            raise SpaceExhausted("all designs of the space that its constraints allow have been proposed")
        phi = ascend_exactly(phi, floored(every), relaxation, ascent, watch)
    else:
        phi = ascend_by_sampling(phi, floored, relaxation, ascent, generator, watch)

    temperature = ascent.temperature
    for turn in range(NEARBY + ANYWHERE):
        if turn < NEARBY:
            points = relaxation.sample(phi, ascent.samples, temperature, generator)[0].flatten(0, 1)
            temperature *= 2
        else:  # at no temperature does a continuous parameter leave its place, or an ordinal one its two levels
            points = relaxation.uniform(ascent.restarts * ascent.samples, generator)
        points = relaxation.rounded(points)
        fresh = points[free(points)]
        if len(fresh):
            with torch.no_grad():
                values = evaluate(fresh)
            chosen = int(values.argmax())
            return fresh[chosen], float(values[chosen])
    raise SpaceExhausted("no further design that the constraints of the space allow was found")
