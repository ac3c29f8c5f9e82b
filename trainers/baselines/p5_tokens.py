"""Item IDs as P5 writes and ranks them: numbers drawn at random, in pieces, and the tree of their beginnings.

Legend: I items, D pieces of the longest ID, M prefixes, E steps of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

NOTHING = -100
"""Fills up rows of pieces; what `cross_entropy` ignores"""
PADDING, END, SEPARATOR, FIRST_DIGITS, BASE = 0, 1, 2, 3, 100
"""Pieces without published weights. They have two decimal digits, about as many as T5's tokenizer puts into one, so
that there are a hundredth as many prefixes to decode as items."""
SHUFFLE_SEED = 2022
"""Of the items' numbers, which say nothing of the items and are the same for every training seed"""


@dataclass(frozen=True)
class ItemPieces:
    """How items are written."""

    items: tuple[tuple[int, ...], ...]
    """Pieces of each item; none is the beginning of another"""
    separator: tuple[int, ...]
    """Pieces between two items of a history"""


def item_numbers(num_items: int) -> list[int]:
    """The number of each item, from 0: a random permutation (P5's random indexing)."""
    return [int(number) for number in np.random.default_rng(SHUFFLE_SEED).permutation(num_items)]


def digit_pieces(num_items: int) -> ItemPieces:
    """IDs of two digits a piece, all as long as the longest, so that they need no end."""
    length = 1
    while BASE**length < num_items:
        length += 1

    def written(number: int) -> tuple[int, ...]:
        return tuple(FIRST_DIGITS + number // BASE**place % BASE for place in reversed(range(length)))

    return ItemPieces(tuple(written(number) for number in item_numbers(num_items)), (SEPARATOR,))


def filled_up(rows: Sequence[Sequence[int]], with_: int = NOTHING) -> Tensor:
    """[rows, longest] int64, filled up behind."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[with_] * (longest - len(row))] for row in rows])


class PrefixTree(nn.Module):
    """All IDs as paths: a node is a prefix, a step leads from a prefix by one more piece. Nodes stand depth first.

    Raises:
        ValueError: an ID is the beginning of another, or two are equal.
    """

    def __init__(self, items: Sequence[tuple[int, ...]], start: int) -> None:
        super().__init__()
        if len({*items}) < len(items):
            raise ValueError("two items have the same ID")
        nodes = sorted({pieces[:length] for pieces in items for length in range(len(pieces))})
        index = {prefix: number for number, prefix in enumerate(nodes)}
        if not index.keys().isdisjoint(items):
            raise ValueError("the ID of an item is the beginning of another")
        steps = sorted({(index[pieces[:length]], pieces[length]) for pieces in items for length in range(len(pieces))})
        number_of = {step: number for number, step in enumerate(steps)}
        lineages = [[index[prefix[:length]] for length in range(len(prefix) + 1)] for prefix in nodes]
        paths = [[number_of[index[pieces[:n]], piece] for n, piece in enumerate(pieces)] for pieces in items]
        self.num_nodes = len(nodes)
        self.lineage = _constant(filled_up(lineages))
        """[M, D] nodes from the root to each node"""
        self.depth = _constant(torch.tensor([len(prefix) for prefix in nodes]))
        """[M] pieces of each prefix"""
        self.read = _constant(torch.tensor([prefix[-1] if prefix else start for prefix in nodes]))
        """[M] newest piece of each prefix"""
        self.step_node = _constant(torch.tensor([node for node, _ in steps]))
        """[E], in ascending order"""
        self.step_piece = _constant(torch.tensor([piece for _, piece in steps]))
        """[E]"""
        self.paths = _constant(filled_up(paths, with_=len(steps)))
        """[I, D] steps of each item, filled up with E"""

    def with_ancestors(self, first: int, end: int) -> Tensor:
        """The nodes from `first` to `end`, and before them those that lie above `first`: closed under prefixes."""
        above = self.lineage[first, : int(self.depth[first])]
        return torch.cat([above, torch.arange(first, end, device=above.device)])

    def sees(self, nodes: Tensor) -> Tensor:
        """[Q, Q]: whether the second of `nodes` is the first or a prefix of it."""
        return (self.lineage[nodes].unsqueeze(1) == nodes.view(1, -1, 1)).any(dim=-1)


def _constant(values: Tensor) -> nn.Buffer:
    return nn.Buffer(values, persistent=False)
