"""Which kernel and which noise level predict unseen designs best from 6 to 50 trials?

    OMP_NUM_THREADS=1 python benchmarks/surrogate_choice.py        about ten minutes

Responses are drawn with unit spread between designs: sparse effects, pairs within a layer, pairs anywhere.
Training noise is .05, .2 or .5 of that spread, and the known level says .2 throughout: right, four times too high, 2.5
times too low. Columns: root mean square error, coverage of 90 % intervals, mean log likelihood of the truth (higher is
better), CPU-seconds of the fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from mixrec_automl.search.kernels import LENGTHSCALE_PRIOR_SPREAD, SHORTEST_LENGTHSCALE, Columns
from mixrec_automl.search.surrogate import fit, predict
from search_spaces.architecture import BITS_PER_LAYER

LEVEL = 0.2
NOISES = (0.05, LEVEL, 0.5)
SEARCHES = 54


def random_bits(rows: int, bits: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(rows, bits, generator=generator) < 0.5).double()


def random_response(kind: str, bits: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    effects = torch.randn(bits, generator=generator, dtype=torch.float64)
    pairs = torch.zeros(bits, bits, dtype=torch.float64)
    if kind == "sparse":
        effects *= torch.rand(bits, generator=generator) < 0.3
    else:
        for layer in range(0, bits, 3):
            block = torch.randn(3, 3, generator=generator, dtype=torch.float64)
            pairs[layer : layer + 3, layer : layer + 3] = 2 * torch.triu(block, 1)
    if kind == "pairs anywhere":
        pairs += 2 * torch.triu(torch.randn(bits, bits, generator=generator), 1) / bits**0.5

    def raw(designs: Tensor) -> Tensor:
        centred = designs - 0.5
        return centred @ effects + ((centred @ pairs) * centred).sum(dim=1)

    sample = raw(random_bits(4000, bits, generator))
    return lambda designs: (raw(designs) - sample.mean()) / sample.std()


def shared(kernel: type[Kernel], bits: int, ard: bool = False) -> Kernel:
    prior = LogNormalPrior(0.5 * math.log(bits), LENGTHSCALE_PRIOR_SPREAD)
    bound = GreaterThan(SHORTEST_LENGTHSCALE, transform=None, initial_value=prior.mode)
    return kernel(ard_num_dims=bits if ard else None, lengthscale_prior=prior, lengthscale_constraint=bound)


def known(designs: Tensor, outcomes: Tensor, kernel: Kernel, level: float = LEVEL) -> SingleTaskGP:
    rows = outcomes[:, None]
    return trained(SingleTaskGP(designs, rows, torch.full_like(rows, level**2), covar_module=kernel))


def inferred(designs: Tensor, outcomes: Tensor) -> SingleTaskGP:
    centre = 2 * math.log(LEVEL / float(outcomes.std()))
    bound = GreaterThan(1e-6, transform=None, initial_value=math.exp(centre))
    likelihood = GaussianLikelihood(noise_prior=LogNormalPrior(centre, 1.5), noise_constraint=bound)
    kernel = shared(RBFKernel, designs.shape[1])
    return trained(SingleTaskGP(designs, outcomes[:, None], likelihood=likelihood, covar_module=kernel))


def layers_of(designs: Tensor) -> Columns:
    return Columns(designs.shape[1], bits_per_layer=BITS_PER_LAYER)


def trained(model: SingleTaskGP) -> SingleTaskGP:
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


@dataclass(frozen=True)
class Candidate:
    name: str
    train: Callable[[Tensor, Tensor], SingleTaskGP]


CANDIDATES = (
    Candidate("ours: chosen by leave-one-out", lambda x, y: fit(x, y, LEVEL**2, layers_of(x))),
    Candidate("RBF, one lengthscale", lambda x, y: known(x, y, shared(RBFKernel, x.shape[1]))),
    Candidate("Matern 5/2, one lengthscale", lambda x, y: known(x, y, shared(MaternKernel, x.shape[1]))),
    Candidate("RBF, ARD, same prior", lambda x, y: known(x, y, shared(RBFKernel, x.shape[1], ard=True))),
    Candidate(
        "RBF, ARD, BoTorch's prior", lambda x, y: known(x, y, get_covar_module_with_dim_scaled_prior(x.shape[1]))
    ),
    Candidate("RBF, one, noise inferred", inferred),
    Candidate("ours, error over users (1.5)", lambda x, y: fit(x, y, 1.5**2, layers_of(x))),
)


def main() -> None:
    for bits in (9, 18, 36):
        for trials in (6, 12, 16, 30, 50):
            print(f"\n{bits} bits, {trials} trials                rmse  coverage  log likelihood  CPU-seconds")
            for candidate in CANDIDATES:
                rows = []
                for search in range(SEARCHES):
                    generator = torch.Generator().manual_seed(1000 * search + bits)
                    kind = ("sparse", "pairs in a layer", "pairs anywhere")[search % 3]
                    response = random_response(kind, bits, generator)
                    designs, unseen = random_bits(trials, bits, generator), random_bits(500, bits, generator)
                    noise = torch.randn(trials, generator=generator, dtype=torch.float64)
                    outcomes = response(designs) + NOISES[search // 3 % 3] * noise
                    began = time.process_time()
                    model = candidate.train(designs, outcomes)
                    seconds = time.process_time() - began
                    mean, deviation = predict(model, unseen)
                    z = (mean - response(unseen)) / deviation
                    likelihood = (-0.5 * z.square() - deviation.log()).mean() - 0.5 * math.log(2 * math.pi)
                    error, covered = (z * deviation).square().mean().sqrt(), (z.abs() < 1.645).double().mean()
                    rows.append([float(error), float(covered), float(likelihood), seconds])
                error, coverage, likelihood, seconds = torch.tensor(rows).mean(dim=0).tolist()
                print(
                    f"{candidate.name:30} {error:7.3f}  {coverage:8.3f}  {likelihood:14.3f}  {seconds:11.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
