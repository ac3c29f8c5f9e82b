"""Probabilistic reparameterization (PR): maximise an acquisition function over binary designs by gradient ascent.

Daulton et al., Bayesian Optimization over Discrete and Mixed Spaces via Probabilistic Reparameterization (NeurIPS
2022); section 2.3.3 and Algorithm 1 of the MixRec paper. The bits become independent Bernoulli variables, and

    E_{Z ~ p(Z | theta)}[alpha(Z)],  theta = sigmoid((phi - 1/2) / tau),  phi in [0, 1]^n

is maximised over phi. Its maximum is that of alpha, at a vertex; unlike alpha it has a gradient. With few bits the
expectation is summed over all designs and differentiated; with many it is estimated from samples with the score
function. Either way the answer is a sample of the optimised distributions, never a scan over designs.

Shapes: R restarts, S samples, n bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixrec_automl.search.designs import DesignSet, Memo, all_designs
from mixrec_automl.search.proposer import SpaceExhausted

Acquisition = Callable[[Tensor], Tensor]
"""Designs [any, n] -> values [any]."""


@dataclass(frozen=True)
class Ascent:
    """How the expectation is maximised; `benchmarks/suggestion_cost.py` measures what the defaults cost and reach."""

    exact_bits: int = 12
    """Up to here the expectation is summed exactly: 4,096 designs."""
    restarts: int = 96
    steps: int = 40
    samples: int = 16
    """Designs drawn for each restart: in every step of the Monte Carlo estimate, and for the final choice."""
    learning_rate: float = 0.1
    temperature: float = 0.1
    """tau: at phi = 0 or 1 a bit is certain up to sigmoid(-1 / (2 tau)) = .7 %."""
    depth: float = 12.0
    """Values further below the best one than this are raised to it: log expected improvement has no lower end."""


def relax(phi: Tensor, temperature: float) -> Tensor:
    """theta, the probability of each bit to be one."""
    return torch.sigmoid((phi - 0.5) / temperature)


def exact_expectation(theta: Tensor, values: Tensor) -> Tensor:
    """E[alpha(Z)] over all designs, differentiable in theta.

    Args:
        theta: [R, n].
        values: alpha of every design in the order of `all_designs`, [2^n].

    Returns:
        [R]; computed bit by bit, so that 2^(n + 1) products suffice for each restart.
    """
    restarts, bits = theta.shape
    folded = values.expand(restarts, -1)
    for bit in range(bits):
        halves = folded.reshape(restarts, 2, -1)
        one = theta[:, bit, None]
        folded = (1 - one) * halves[:, 0] + one * halves[:, 1]
    return folded[:, 0]


def score_function_gradient(theta: Tensor, designs: Tensor, values: Tensor, temperature: float) -> Tensor:
    """Unbiased estimate of the gradient of E[alpha(Z)] in phi.

    d log p(z | phi) / d phi = (z - theta) / tau. The baseline of a sample is the mean of the others (leave-one-out),
    which depends on them alone and so adds no bias.

    Args:
        theta: [R, n].
        designs: samples of p(Z | theta), [R, S, n].
        values: alpha of the samples, [R, S].

    Returns:
        [R, n].
    """
    samples = values.shape[1]
    others = (values.sum(dim=1, keepdim=True) - values) / (samples - 1)
    score = (designs - theta[:, None, :]) / temperature
    return ((values - others)[:, :, None] * score).mean(dim=1)


def sample(theta: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Designs z ~ p(Z | theta), [R, S, n]."""
    uniform = torch.rand(theta.shape[0], samples, theta.shape[1], generator=generator, dtype=theta.dtype)
    return (uniform < theta[:, None, :]).to(theta.dtype)


def starting_points(good: Tensor, bits: int, ascent: Ascent, generator: torch.Generator) -> Tensor:
    """phi [R, n]: a sixth at good designs, a sixth one bit away from them, the rest uniform in [0, 1]^n."""
    phi = torch.rand(ascent.restarts, bits, generator=generator, dtype=torch.float64)
    at_good = min(len(good), ascent.restarts // 6)
    if at_good:
        chosen = good[:at_good].to(torch.float64).repeat(2, 1)
        flipped = torch.randint(bits, (at_good,), generator=generator)
        rows = torch.arange(at_good, 2 * at_good)
        chosen[rows, flipped] = 1 - chosen[rows, flipped]
        phi[: 2 * at_good] = 0.5 + (chosen - 0.5) * min(1.0, 5 * ascent.temperature)  # theta = .08 or .92
    return phi


def _ascend(phi: Tensor, gradient: Callable[[Tensor], Tensor], ascent: Ascent) -> Tensor:
    phi = phi.clone()
    optimiser = torch.optim.Adam([phi], lr=ascent.learning_rate, maximize=True)
    for _ in range(ascent.steps):
        phi.grad = gradient(phi)
        optimiser.step()
        phi.clamp_(0.0, 1.0)
    return phi


def ascend_exactly(phi: Tensor, values: Tensor, ascent: Ascent) -> Tensor:
    """Maximise the exact expectation from each start; `values` as in `exact_expectation`."""

    def gradient(point: Tensor) -> Tensor:
        leaf = point.detach().requires_grad_()
        total = exact_expectation(relax(leaf, ascent.temperature), values).sum()
        return torch.autograd.grad(total, leaf)[0]

    return _ascend(phi, gradient, ascent)


def ascend_by_sampling(phi: Tensor, values_of: Acquisition, ascent: Ascent, generator: torch.Generator) -> Tensor:
    """Maximise the expectation by Monte Carlo; rewards are scaled to unit spread within each restart."""

    def gradient(point: Tensor) -> Tensor:
        theta = relax(point, ascent.temperature)
        designs = sample(theta, ascent.samples, generator)
        rewards = values_of(designs.flatten(0, 1)).reshape(designs.shape[:2])
        spread = rewards.std(dim=1, keepdim=True)
        return score_function_gradient(theta, designs, rewards / spread.clamp_min(1e-9), ascent.temperature)

    return _ascend(phi, gradient, ascent)


def propose_design(
    acquisition: Acquisition, bits: int, seen: Iterable[Tensor], good: Tensor, ascent: Ascent, seed: int
) -> tuple[Tensor, float]:
    """The best unseen design that the optimised distributions hold, and its acquisition value.

    Args:
        acquisition: to be maximised.
        bits: n.
        seen: designs that must not be proposed, each [n].
        good: designs to start from, best first, [any, n]; may be empty.
        ascent: options.
        seed: of all random numbers; the same seed gives the same answer.

    Raises:
        SpaceExhausted: `seen` holds all 2^n designs.
    """
    avoided = DesignSet(seen)
    if bits < 63 and len(avoided) >= 1 << bits:
        raise SpaceExhausted(f"all {1 << bits} designs of {bits} bits have been proposed")
    generator = torch.Generator().manual_seed(seed)
    memo = Memo(acquisition)

    def floored(designs: Tensor) -> Tensor:
        values = memo(designs)
        taken = avoided.contains(designs)
        if bool(taken.all()):
            return torch.zeros_like(values)
        floor = max(float(values[~taken].min()), memo.best - ascent.depth)
        return values.masked_fill(taken, floor).clamp_min(floor)

    phi = starting_points(good, bits, ascent, generator)
    if bits <= ascent.exact_bits:
        phi = ascend_exactly(phi, floored(all_designs(bits)), ascent)
    else:
        phi = ascend_by_sampling(phi, floored, ascent, generator)

    temperature = ascent.temperature
    while True:
        drawn = sample(relax(phi, temperature), ascent.samples, generator).flatten(0, 1)
        fresh = drawn[~avoided.contains(drawn)]
        if len(fresh):
            values = memo(fresh)
            best = int(values.argmax())
            return fresh[best], float(values[best])
        temperature *= 2  # wider and wider, towards the uniform distribution, under which every design can be drawn
