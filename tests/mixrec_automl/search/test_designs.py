import torch

from mixrec_automl.search.designs import DesignSet, Memo, all_designs


def test_all_designs_count_up_with_the_first_bit_most_significant() -> None:
    designs = all_designs(3)
    assert [int("".join(str(int(bit)) for bit in row), 2) for row in designs] == list(range(8))


def test_a_set_tells_long_designs_apart_by_any_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    design = (torch.rand(97, generator=generator) < 0.5).double()
    neighbours = design.repeat(97, 1)
    neighbours[torch.arange(97), torch.arange(97)] = 1 - design
    seen = DesignSet([design, design])
    assert len(seen) == 1
    assert seen.contains(torch.cat([neighbours, design[None]])).tolist() == [False] * 97 + [True]


def test_memo_evaluates_each_distinct_design_once() -> None:
    evaluated: list[list[float]] = []

    def function(designs: torch.Tensor) -> torch.Tensor:
        evaluated.extend(designs.tolist())
        return designs.sum(dim=1)

    memo = Memo(function)
    twice = all_designs(4).repeat(2, 1)
    assert memo(twice).tolist() == twice.sum(dim=1).tolist()
    assert memo(all_designs(4)[5:9]).tolist() == all_designs(4)[5:9].sum(dim=1).tolist()
    assert len(memo) == len(evaluated) == 16
    assert memo.best == 4.0
