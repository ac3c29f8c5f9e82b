"""Each covariance is the one that its source writes down."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel

from mixrec_automl.search.kernels import Columns, Covariance, DesignKernel, candidates
from mixrec_automl.search.relaxation import BIT, Factor, Kind, Relaxation

LAYERS = Columns(bits=9, bits_per_layer=3)
MIXED = Relaxation((BIT, Factor(Kind.NOMINAL, 3), Factor(Kind.CONTINUOUS), BIT, Factor(Kind.ORDINAL, 5)))
NAMES = ["RBF", "Matern 5/2", "RBF, ARD", "pairs", "RBF, shared by layers"]


def random_bits(number: int, bits: int, seed: int = 0) -> torch.Tensor:
    return (torch.rand(number, bits, generator=torch.Generator().manual_seed(seed)) < 0.5).double()


def literal(name: str, values: list[float], left: list[float], right: list[float]) -> float:
    """Of two designs of nine bits."""
    differs = [a != b for a, b in zip(left, right, strict=True)]
    if name == "pairs":
        signs = [1 - 2 * one for one in differs]
        singles = sum(signs) / 9
        pairs = sum(a * b for a, b in itertools.combinations(signs, 2)) / 36
        return (singles + values[0] * pairs) / (1 + values[0])
    if name == "Matern 5/2":
        r = math.sqrt(5 * sum(differs)) / values[0]
        return (1 + r + r**2 / 3) * math.exp(-r)
    lengths = {"RBF": values * 9, "RBF, ARD": values, "RBF, shared by layers": values * 3}[name]
    return math.exp(-sum(one / (2 * length**2) for one, length in zip(differs, lengths, strict=True)))


@pytest.mark.parametrize("name", NAMES)
def test_covariance_of_bits_is_the_literal_formula(name: str) -> None:
    kernel = {one.name: one for one in candidates(LAYERS)}[name]
    hyperparameters = torch.linspace(0.7, 2.9, len(kernel.priors)).double()
    designs = random_bits(40, 9)
    module = DesignKernel(Covariance(LAYERS, kernel), hyperparameters)
    found = module(designs).to_dense()
    for (i, left), (j, right) in itertools.product(enumerate(designs.tolist()), repeat=2):
        assert float(found[i, j]) == pytest.approx(literal(name, hyperparameters.tolist(), left, right), abs=1e-9)
    assert torch.allclose(found.diagonal(), torch.ones(40).double(), atol=1e-9)
    assert torch.equal(module(designs, diag=True), torch.ones(40).double())
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-9


@pytest.mark.parametrize("name", NAMES[:4])
def test_a_nominal_parameter_counts_as_one_and_numbers_by_their_distance(name: str) -> None:
    """Against the same formulas over parameters, and GPyTorch's RBF of the numbers."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.rand(30, 5, generator=generator).double()
    points = torch.stack([draws[:, 0].round(), *(draws[:, k] * n for k, n in ((1, 3), (2, 1), (3, 2), (4, 5)))], dim=1)
    points[:, [1, 3, 4]] = points[:, [1, 3, 4]].floor()
    kernel = {one.name: one for one in candidates(MIXED.columns)}[name]
    covariance = Covariance(MIXED.columns, kernel)
    own = torch.tensor([0.8, 1.1, 1.7])[: len(kernel.priors)].double()
    numeric = torch.tensor([0.3, 0.9]).double()
    features = MIXED.features(points)
    found = covariance(torch.cat([own, numeric]), features, features)

    differs = (points[:, None, [0, 3, 1]] != points[None, :, [0, 3, 1]]).double()
    if name == "pairs":
        correlation = 1 - differs * torch.tensor([2, 2, 1.5])
        singles = correlation.sum(-1)
        pairs = (correlation[..., 0] * (correlation[..., 1] + correlation[..., 2])) + correlation[..., 1:].prod(-1)
        expected = (singles / 3 + own * pairs / 3) / (1 + own)
    else:
        places = torch.cat([points[:, [0, 3]], torch.nn.functional.one_hot(points[:, 1].long()) / math.sqrt(2)], dim=1)
        peer = MaternKernel(nu=2.5) if name == "Matern 5/2" else RBFKernel(ard_num_dims=5)
        peer = peer.double()
        peer.lengthscale = own[[0, 1, 2, 2, 2]] if name == "RBF, ARD" else own
        expected = peer(places).to_dense().detach()
    of_numbers = RBFKernel(ard_num_dims=2).double()
    of_numbers.lengthscale = numeric
    scaled = torch.stack([points[:, 2], points[:, 4] / 4], dim=1)
    expected = expected * of_numbers(scaled).to_dense().detach()
    assert torch.allclose(found, expected, atol=1e-9)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-9


def test_which_candidates_a_space_has() -> None:
    assert [one.name for one in candidates(LAYERS)] == NAMES
    assert [one.name for one in candidates(MIXED.columns)] == NAMES[:4], "no layers"
    assert [one.name for one in candidates(Columns(bits=1, numeric=2))] == NAMES[:2], "one bit has no pairs"
    assert candidates(Columns(bits=0, numeric=2)) == ()
