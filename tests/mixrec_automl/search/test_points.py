import torch

from mixrec_automl.search.points import Memo, PointSet
from mixrec_automl.search.relaxation import all_points

BITS = all_points((2,) * 4)


def test_a_set_tells_long_designs_apart_by_any_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    design = (torch.rand(97, generator=generator) < 0.5).double()
    neighbours = design.repeat(97, 1)
    neighbours[torch.arange(97), torch.arange(97)] = 1 - design
    seen = PointSet([design, design])
    assert len(seen) == 1
    assert seen.contains(torch.cat([neighbours, design[None]])).tolist() == [False] * 97 + [True]


def test_memo_evaluates_each_distinct_design_once() -> None:
    evaluated: list[list[float]] = []

    def function(designs: torch.Tensor) -> torch.Tensor:
        evaluated.extend(designs.tolist())
        return designs.sum(dim=1)

    memo = Memo(function)
    twice = BITS.repeat(2, 1)
    assert memo(twice).tolist() == twice.sum(dim=1).tolist()
    assert memo(BITS[5:9]).tolist() == BITS[5:9].sum(dim=1).tolist()
    assert len(memo) == len(evaluated) == 16


def test_a_zero_is_a_zero_and_near_numbers_differ() -> None:
    seen = PointSet([torch.tensor([0.0, 0.25], dtype=torch.float64)])
    asked = torch.tensor([[-0.0, 0.25], [0.0, 0.25 + 1e-15]], dtype=torch.float64)
    assert seen.contains(asked).tolist() == [True, False]
    assert PointSet([]).contains(torch.empty(0, 2)).tolist() == []
