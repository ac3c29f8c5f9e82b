"""What one training step sees, as plain lists, before anything is packed into tensors.

The sampler draws a `Step`; the product packs it into a batch and the literal oracle of the tests reads it as it
is, so both are given the very same random draws.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ContrastiveAnchor:
    """One term of L_cl (paper, 2.2.4): the `[SEQ]` state of `row` at `position` against positive and negatives."""

    row: int
    position: int
    """Index into the row's `inputs`; the positive is the item that follows there."""
    positive: int
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class CollaborativeDraw:
    """One positive of L_cf with its negatives: user index, item indices."""

    user: int
    positive: int
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """The rows of one global batch, or one worker's share of it."""

    users: tuple[int, ...]
    """[B] user index of each row"""
    inputs: tuple[tuple[int, ...], ...]
    """[B][n_u] item indices, oldest to newest"""
    targets: tuple[tuple[int, ...], ...]
    """[B][n_u] the item to predict at each input's `[SEQ]`"""
    anchors: tuple[ContrastiveAnchor, ...]
    align_items: tuple[int, ...]
    """Distinct items of L_align; in a global batch they hold every positive and negative of `anchors`"""
    collaborative: tuple[CollaborativeDraw, ...]
    hidden_user_columns: frozenset[int] = frozenset()
    """Rows whose user column is dropped in this step (ruling 4)"""
    seed: int = 0
    """Of the dropout before the item projection"""
    sampled_items: tuple[int, ...] = ()
    """Distinct items that stand for the catalogue in a sampled loss, the same on all workers; empty: exact loss"""
