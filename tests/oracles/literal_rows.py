"""What one row of text is, and the two masks over it (paper, 2.2.2, 2.2.3 and 2.3.1; Fig. 3).

A row is never padded. Every token has an owner, the number of its item within the row; a leading BOS has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SEQ = "[SEQ]"
ALIGN = "[ALIGN]"
BOS_OWNER = None


@dataclass(frozen=True)
class Column:
    """A collaborative vector as one extra key and value.

    A user's vector is written down once for each item of the row: its key takes the position of the item that looks
    at it (ruling 17), so one vector is several keys.
    """

    owner: int
    """The only item of the row whose tokens see this column."""
    kind: Literal["item", "user"]
    index: int
    """Item index or user index."""


@dataclass(frozen=True)
class Row:
    tokens: tuple[int | str, ...]
    """Token indices, SEQ or ALIGN"""
    owners: tuple[int | None, ...]
    columns: tuple[Column, ...]
    positions: tuple[int, ...]

    @property
    def column_positions(self) -> tuple[int, ...]:
        """Each column stands at the first token of its owner (ruling 17)."""
        return tuple(self.positions[self.owners.index(column.owner)] for column in self.columns)

    def places(self, special: str) -> list[int]:
        """Where `special` occurs in the row."""
        return [place for place, token in enumerate(self.tokens) if token == special]


def make_row(sentences: Sequence[Sequence[int | str]], columns: Sequence[Column], bos_token: int | None) -> Row:
    """One row from the tokens of its items, special tokens included; `bos_token` is None where no BOS leads."""
    tokens: list[int | str] = [] if bos_token is None else [bos_token]
    owners: list[int | None] = [] if bos_token is None else [BOS_OWNER]
    for number, sentence in enumerate(sentences):
        tokens += sentence
        owners += [number] * len(sentence)
    return Row(tuple(tokens), tuple(owners), tuple(columns), tuple(range(len(tokens))))


def causal_mask(row: Row) -> Tensor:
    """[T, T + C] booleans: a token attends to itself and earlier tokens, never to a column."""
    size = len(row.tokens)
    return torch.tensor([[j <= i for j in range(size)] + [False] * len(row.columns) for i in range(size)])


def context_mask(row: Row) -> Tensor:
    """[T, T + C] booleans: SameItem(i, j), both directions, and the columns of the token's own item.

    A leading BOS belongs to no item and attends to itself only.
    """

    def same_item(i: int, j: int) -> bool:
        return i == j or (row.owners[i] is not BOS_OWNER and row.owners[i] == row.owners[j])

    size = len(row.tokens)
    return torch.tensor(
        [
            [same_item(i, j) for j in range(size)] + [column.owner == row.owners[i] for column in row.columns]
            for i in range(size)
        ]
    )


def second_mask(row: Row, kind: str) -> Tensor:
    """[T, T + C] of the second branch: the context mask, or a control of Fig. 8, with columns or without."""
    size = len(row.tokens)
    if kind == "context":
        return context_mask(row)
    tokens = causal_mask(row)[:, :size]
    columns = context_mask(row)[:, size:]
    return torch.cat([tokens, columns & torch.tensor(kind == "causal+columns")], dim=1)


def additive(mask: Tensor) -> Tensor:
    """0 for True and minus infinity for False (section 7, slips: the printed product would give logit 0)."""
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
