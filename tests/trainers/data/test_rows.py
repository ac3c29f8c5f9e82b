"""Packed rows against rows laid out one token at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.rows import ALIGN, NO_COLUMN, SEQ, Groups, Rows, pack_rows
from trainers.data.sequence_data import ItemTokens

BOS = 99
SENTENCES = [[10], [20, 21], [30, 31, 32], [40, 41, 42, 43], [50, 51]]
TOKENS = ItemTokens(
    np.cumsum([0, *map(len, SENTENCES)]).astype(np.int64),
    np.array([token for sentence in SENTENCES for token in sentence], dtype=np.int32),
)

inputs = st.lists(st.lists(st.integers(0, len(SENTENCES) - 1), min_size=1, max_size=5), min_size=1, max_size=4)


@dataclass
class Literal:
    """One token at a time; `None` stands for a special token."""

    tokens: list[int | None] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    """Item column of each block"""
    users: list[int] = field(default_factory=list)
    readouts: list[list[int]] = field(default_factory=list)

    def add(self, token: int | None, position: int, row: int) -> None:
        self.tokens.append(token)
        self.positions.append(position)
        self.row.append(row)
        self.block.append(len(self.items) - 1)


def literal(
    rows: list[list[int]],
    prefix: list[int],
    bos: int | None,
    columns: list[list[int]],
    users: list[int],
    last_only: bool,
) -> Literal:
    found = Literal()
    for number, row in enumerate(rows):
        position, read = 0, []
        if bos is not None:
            found.items.append(NO_COLUMN)
            found.users.append(NO_COLUMN)
            found.add(bos, position, number)
            position += 1
        for place, item in enumerate(row):
            found.items.append(columns[number][place])
            found.users.append(users[number])
            for token in [*(prefix if place == 0 else []), *SENTENCES[item], None]:
                found.add(token, position, number)
                position += 1
            read.append(len(found.tokens) - 1)
        found.readouts.append(read[-1:] if last_only else read)
    return found


def members(groups: Groups) -> list[list[int]]:
    return [slots[:length].tolist() for slots, length in zip(groups.slots, groups.lengths.tolist(), strict=True)]


def grouped(numbers: list[int]) -> list[list[int]]:
    return [[at for at, number in enumerate(numbers) if number == group] for group in range(max(numbers) + 1)]


def assert_equal(packed: Rows, expected: Literal) -> None:
    special = [at for at, token in enumerate(expected.tokens) if token is None]
    assert packed.tokens.tolist() == [token or 0 for token in expected.tokens]
    assert packed.special.tolist() == special
    assert packed.positions.tolist() == expected.positions
    assert members(packed.rows) == grouped(expected.row)
    assert members(packed.blocks) == grouped(expected.block)
    assert packed.starts.tolist() == [expected.positions[block[0]] for block in grouped(expected.block)]
    assert packed.column_items.tolist() == expected.items
    assert packed.column_users.tolist() == expected.users
    flat = [at for row in expected.readouts for at in row]
    assert packed.readouts.tolist() == flat
    assert packed.readout_blocks.tolist() == [expected.block[at] for at in flat]
    assert [[flat[at] for at in row] for row in members(packed.readout_rows)] == expected.readouts


@settings(max_examples=100)
@given(
    rows=inputs, prefix=st.lists(st.integers(1, 9), max_size=3), bos=st.booleans(), last=st.booleans(), data=st.data()
)
def test_rows_are_as_laid_out_by_hand(
    rows: list[list[int]], prefix: list[int], bos: bool, last: bool, data: st.DataObject
) -> None:
    index = st.integers(NO_COLUMN, 7)
    columns = [data.draw(st.lists(index, min_size=len(row), max_size=len(row))) for row in rows]
    users = data.draw(st.lists(index, min_size=len(rows), max_size=len(rows)))
    start = BOS if bos else None
    packed = pack_rows(
        rows,
        TOKENS,
        kind=SEQ,
        prefix=prefix,
        bos_token=start,
        column_items=columns,
        column_users=users,
        read_last_only=last,
    )
    assert packed.kind == SEQ
    assert_equal(packed, literal(rows, prefix, start, columns, users, last))


def test_an_alignment_row_by_hand() -> None:
    packed = pack_rows([[2]], TOKENS, kind=ALIGN, prefix=[7, 8], bos_token=BOS, column_items=[[2]], column_users=[-1])
    assert packed.kind == ALIGN
    assert packed.tokens.tolist() == [BOS, 7, 8, 30, 31, 32, 0]
    assert members(packed.blocks) == [[0], [1, 2, 3, 4, 5, 6]], "the prompt belongs to the item, the BOS to nothing"
    assert packed.column_items.tolist() == [NO_COLUMN, 2]
    assert packed.starts.tolist() == [0, 1]


@given(rows=inputs, seed=st.integers(0, 99))
def test_gather_and_scatter_are_inverse(rows: list[list[int]], seed: int) -> None:
    packed = pack_rows(
        rows,
        TOKENS,
        kind=SEQ,
        column_items=[[NO_COLUMN] * len(row) for row in rows],
        column_users=[NO_COLUMN] * len(rows),
    )
    flat = torch.randn(len(packed.tokens), 2, 3, generator=torch.Generator().manual_seed(seed))
    for groups in (packed.rows, packed.blocks):
        assert groups.scatter(groups.gather(flat)).equal(flat.flatten(1))
