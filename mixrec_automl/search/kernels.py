"""Covariances between designs that a surrogate is chosen among, all with k(z, z) = 1.

What tells two values of a discrete parameter apart is only whether they are equal. With d_i = 1 where parameter i
differs and 0 where it does not, they are:

- RBF, k = exp(-sum_i d_i / (2 l_i^2)), with one lengthscale for all, one for each parameter (ARD), or one for each of
  the three bits of a layer, shared by the layers. On bits this is the diffusion kernel of a hypercube, with
  exp(-1 / (2 l^2)) = tanh(beta): Kondor and Lafferty, Diffusion Kernels on Graphs (ICML 2002); with one beta for each
  variable: Oh et al., Combinatorial Bayesian Optimization using the Graph Cartesian Product (COMBO, NeurIPS 2019).
- Matern 5/2 of r = sqrt(sum_i d_i) / l: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006),
  equation 4.17.
- Pairs, k = (e_1 / D + rho e_2 / (D (D - 1) / 2)) / (1 + rho) with the first two elementary symmetric polynomials of
  the D correlations c_i = 1 - d_i v / (v - 1) of a parameter with v values: effects of single parameters and of pairs,
  each independent and normal, as in the model of Baptista and Poloczek, Bayesian Optimization of Combinatorial
  Structures (BOCS, ICML 2018). The polynomials are those of Duvenaud et al., Additive Gaussian Processes (NeurIPS
  2011).

Numeric parameters have an RBF with a lengthscale each, by which the discrete ones are multiplied.

Shapes: n columns, p hyperparameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from gpytorch.kernels import Kernel
from torch import Tensor

LENGTHSCALE_PRIOR_SPREAD = 0.75
SHORTEST_LENGTHSCALE = 0.1
NUMERIC_PRIOR_MEAN, NUMERIC_PRIOR_SPREAD = math.sqrt(2), math.sqrt(3)
"""Of log lengthscales in [0, 1]^d, the mean for d = 1: Hvarfner et al., Vanilla Bayesian Optimization Performs Great in
High Dimensions (ICML 2024), as BoTorch's own default."""
CLOSEST = 1e-20
"""Squared distances below it count as it, since a square root has no derivative at zero."""


@dataclass(frozen=True)
class Prior:
    """Log-normal prior of one hyperparameter, and the least value that it may take."""

    mean: float
    spread: float
    least: float

    @property
    def mode(self) -> float:
        return math.exp(self.mean - self.spread**2)


@dataclass(frozen=True)
class Columns:
    """What the columns of a point are: bits, then each nominal parameter as one of v columns, then numbers.

    See `Relaxation.features`.
    """

    bits: int
    nominal: tuple[int, ...] = ()
    """v of each nominal parameter"""
    numeric: int = 0
    bits_per_layer: int | None = None
    """Of architectures, whose layers repeat"""

    @cached_property
    def parameters(self) -> tuple[int, ...]:
        """Which discrete parameter each discrete column belongs to."""
        own = [self.bits + place for place, values in enumerate(self.nominal) for _ in range(values)]
        return (*range(self.bits), *own)

    @property
    def discrete(self) -> int:
        """Number of discrete parameters."""
        return self.bits + len(self.nominal)


class DiscreteKernel(Protocol):
    """A covariance of the discrete columns."""

    @property
    def name(self) -> str: ...

    @property
    def priors(self) -> tuple[Prior, ...]:
        """One a hyperparameter."""

    def covariance(self, hyperparameters: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """[p], [..., a, n], [..., b, n] -> [..., a, b]; differentiable in the hyperparameters."""


def lengthscale_prior(parameters: int) -> Prior:
    """Its mean grows with the root of the number of parameters: so two random designs correlate alike for any."""
    return Prior(0.5 * math.log(parameters), LENGTHSCALE_PRIOR_SPREAD, SHORTEST_LENGTHSCALE)


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """[..., a, n], [..., b, n] -> [..., a, b]."""
    cross = left @ right.transpose(-1, -2)
    norms = left.square().sum(-1)[..., :, None] + right.square().sum(-1)[..., None, :]
    return (norms - 2 * cross).clamp_min(0)


@dataclass(frozen=True)
class GroupedRBF:
    """RBF with one lengthscale for each group of parameters."""

    name: str
    groups: tuple[int, ...]
    """Of each column, from 0"""
    parameters: int

    @property
    def priors(self) -> tuple[Prior, ...]:
        return (lengthscale_prior(self.parameters),) * (max(self.groups) + 1)

    def covariance(self, hyperparameters: Tensor, left: Tensor, right: Tensor) -> Tensor:
        if len(hyperparameters) == 1:
            return torch.exp(squared_distance(left, right) * (-0.5 / hyperparameters.square()))
        scale = hyperparameters[list(self.groups)]
        return torch.exp(-0.5 * squared_distance(left / scale, right / scale))


@dataclass(frozen=True)
class Matern:
    """Matern 5/2 with one lengthscale."""

    name: str
    parameters: int

    @property
    def priors(self) -> tuple[Prior, ...]:
        return (lengthscale_prior(self.parameters),)

    def covariance(self, hyperparameters: Tensor, left: Tensor, right: Tensor) -> Tensor:
        distance = squared_distance(left, right).clamp_min(CLOSEST).sqrt()
        r = distance * (math.sqrt(5) / hyperparameters)
        return (1 + r + r.square() / 3) * torch.exp(-r)


@dataclass(frozen=True)
class Pairs:
    """Effects of single parameters and of pairs; its hyperparameter is rho, the variance of the latter in the former's.

    The prior of rho, whose mode is .57, expects lower orders to count for more.
    """

    name: str
    columns: Columns

    @property
    def priors(self) -> tuple[Prior, ...]:
        return (Prior(0.0, LENGTHSCALE_PRIOR_SPREAD, 1e-3),)

    def covariance(self, hyperparameters: Tensor, left: Tensor, right: Tensor) -> Tensor:
        total = self.columns.discrete
        singles = total - self._sum(left, right, [values / (values - 1) for values in self._values])
        squares: Tensor | int = total  # of bits, whose correlation is 1 or -1
        if self.columns.nominal:
            squares = total - self._sum(left, right, [1 - 1 / (values - 1) ** 2 for values in self._values])
        pairs = (singles.square() - squares) / (total * (total - 1))
        return (singles / total + hyperparameters * pairs) / (1 + hyperparameters)

    @property
    def _values(self) -> tuple[int, ...]:
        return (2,) * self.columns.bits + self.columns.nominal

    def _sum(self, left: Tensor, right: Tensor, weights: list[float]) -> Tensor:
        """Of the weights of those parameters that differ."""
        root = torch.tensor(weights, dtype=left.dtype)[list(self.columns.parameters)].sqrt()
        return squared_distance(left * root, right * root)


def candidates(columns: Columns) -> tuple[DiscreteKernel, ...]:
    """What is chosen among, the one that is kept in doubt first; empty where no column is discrete."""
    total, layer = columns.discrete, columns.bits_per_layer
    if total == 0:
        return ()
    places = range(len(columns.parameters))
    found: list[DiscreteKernel] = [GroupedRBF("RBF", (0,) * len(places), total), Matern("Matern 5/2", total)]
    if total > 1:
        found += [GroupedRBF("RBF, ARD", columns.parameters, total), Pairs("pairs", columns)]
    if layer is not None and total > layer:
        found.append(GroupedRBF("RBF, shared by layers", tuple(place % layer for place in places), total))
    return tuple(found)


def numeric_prior(parameters: int) -> Prior:
    """Of each lengthscale."""
    return Prior(NUMERIC_PRIOR_MEAN + 0.5 * math.log(parameters), NUMERIC_PRIOR_SPREAD, SHORTEST_LENGTHSCALE / 4)


@dataclass(frozen=True)
class Covariance:
    """Of whole points: that of the discrete columns, where there are any, times that of the numeric ones."""

    columns: Columns
    discrete: DiscreteKernel | None

    @property
    def name(self) -> str:
        return "RBF" if self.discrete is None else self.discrete.name

    @property
    def priors(self) -> tuple[Prior, ...]:
        own = () if self.discrete is None else self.discrete.priors
        return own + (numeric_prior(self.columns.numeric),) * self.columns.numeric if self.columns.numeric else own

    def __call__(self, hyperparameters: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """[p], [..., a, n], [..., b, n] -> [..., a, b]; differentiable in the hyperparameters and numeric columns."""
        numeric, first = self.columns.numeric, len(self.columns.parameters)
        if self.discrete is None:
            return _rbf(hyperparameters, left, right)
        own = hyperparameters[: len(hyperparameters) - numeric]
        found = self.discrete.covariance(own, left[..., :first].detach(), right[..., :first].detach())
        if numeric:
            found = found * _rbf(hyperparameters[len(own) :], left[..., first:], right[..., first:])
        return found


def _rbf(lengthscales: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.exp(-0.5 * squared_distance(left / lengthscales, right / lengthscales))


class DesignKernel(Kernel):  # type: ignore[misc]
    """A `Covariance` with its hyperparameters, for GPyTorch."""

    values: Tensor
    """Of the hyperparameters, [p]"""

    def __init__(self, covariance: Covariance, hyperparameters: Tensor) -> None:
        """
        Args:
            covariance: whose.
            hyperparameters: [p].
        """
        super().__init__()
        self.covariance = covariance
        self.register_buffer("values", hyperparameters)

    @property
    def name(self) -> str:
        return self.covariance.name

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        if diag:
            return torch.ones(x1.shape[:-1], dtype=x1.dtype)
        return self.covariance(self.values, x1, x2)
