"""Packed rows against rows laid out one token at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.data.seen import Seen, seen
from trainers.data.rows import ALIGN, NO_COLUMN, SEQ, Rows, pack_rows
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
    newest: int | None,
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
        found.readouts.append(read if newest is None else read[-newest:])
    return found


def grouped(numbers: list[int]) -> list[list[int]]:
    return [[at for at, number in enumerate(numbers) if number == group] for group in range(max(numbers) + 1)]


def assert_equal(packed: Rows, expected: Literal) -> None:
    special = [at for at, token in enumerate(expected.tokens) if token is None]
    assert packed.tokens.tolist() == [token or 0 for token in expected.tokens]
    assert packed.special.tolist() == special
    assert packed.positions.tolist() == expected.positions
    assert packed.vocabulary[packed.words].equal(packed.tokens)
    assert packed.vocabulary.tolist() == sorted(set(packed.tokens.tolist()))
    flat = [at for row in expected.readouts for at in row]
    assert packed.readouts.tolist() == flat
    by_row, by_block = grouped(expected.row), grouped(expected.block)
    assert seen(packed, packed.causal, len(packed.tokens)) == [Seen(tuple(row), tuple(row)) for row in by_row]
    blocks = [of_block(expected, number) for number in range(len(by_block))]
    assert seen(packed, packed.context, len(packed.tokens)) == blocks
    reads = [tuple(flat.index(at) for at in row) for row in expected.readouts]
    by_readouts = [Seen(read, tuple(row)) for read, row in zip(reads, by_row, strict=True)]
    assert seen(packed, packed.causal_readouts, len(flat)) == by_readouts
    lone = [replace(blocks[expected.block[at]], queries=(number,)) for number, at in enumerate(flat)]
    assert seen(packed, packed.context_readouts, len(flat)) == lone


def of_block(expected: Literal, number: int) -> Seen:
    tokens = tuple(grouped(expected.block)[number])
    item, user = expected.items[number], expected.users[number]
    start = expected.positions[tokens[0]]
    return Seen(tokens, tokens, item, user, (start,) * ((item != NO_COLUMN) + (user != NO_COLUMN)))


@settings(max_examples=100)
@given(
    rows=inputs,
    prefix=st.lists(st.integers(1, 9), max_size=3),
    bos=st.booleans(),
    newest=st.sampled_from([None, 1, 2]),
    data=st.data(),
)
def test_rows_are_as_laid_out_by_hand(
    rows: list[list[int]], prefix: list[int], bos: bool, newest: int | None, data: st.DataObject
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
        read_newest=newest,
    )
    assert packed.kind == SEQ
    assert_equal(packed, literal(rows, prefix, start, columns, users, newest))


def test_an_alignment_row_by_hand() -> None:
    packed = pack_rows([[2]], TOKENS, kind=ALIGN, prefix=[7, 8], bos_token=BOS, column_items=[[2]], column_users=[-1])
    assert packed.kind == ALIGN
    assert packed.tokens.tolist() == [BOS, 7, 8, 30, 31, 32, 0]
    context = [Seen((0,), (0,)), Seen((1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6), item=2, column_positions=(1,))]
    assert seen(packed, packed.context, 7) == context, "the prompt belongs to the item, the BOS to nothing"


def test_many_short_segments_are_sorted_and_few_long_ones_stay() -> None:
    """Sorting costs a copy of all queries, keys and values: it pays where it leaves fewer batches to run."""
    nobody = [NO_COLUMN] * 6
    alternating = pack_rows([[0, 2]] * 6, TOKENS, kind=SEQ, column_items=[[NO_COLUMN] * 2] * 6, column_users=nobody)
    assert [bucket.segments for bucket in alternating.context.buckets] == [6, 6]
    assert alternating.causal.keys is None
    assert [bucket.segments for bucket in alternating.causal.buckets] == [6]
