"""Scores of histories that mostly grow by an item or two: what was read before is not read again."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainers.data.batches import Layout
from trainers.device import move
from trainers.evaluate import TOKENS_AT_ONCE, UNKNOWN_USER, passes
from trainers.model.kv_cache import CachedRow, read_rows
from trainers.model.mixrec import MixRec

Items = tuple[int, ...]


class HistoryCache:
    """Keys and values by history, the least recently used forgotten first. May be used by several threads.

    A history whose beginning is known is read from there on, item by item as a whole. One whose window has moved on has
    another beginning, at other positions, and is read anew: that is what the model was trained on.

    Args:
        most_bytes: of keys and values, on the model's device.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: OrderedDict[Items, CachedRow] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter(dict.fromkeys(("known", "continued", "new"), 0))

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def outcomes(self) -> dict[str, int]:
        """How many histories were known as a whole, continued from their beginning, or new."""
        return dict(self._outcomes)

    @torch.inference_mode()
    def score(self, model: MixRec, layout: Layout, histories: Sequence[Sequence[int]]) -> Tensor:
        """Scores [B, I] of the whole catalogue after each history of an unknown user, as `score_histories` has them."""
        wanted = [tuple(history) for history in histories]
        states: dict[Items, Tensor] = {}
        continued: list[tuple[Items, int, CachedRow]] = []
        new: list[Items] = []
        for items in dict.fromkeys(wanted):
            length, row = self._longest_beginning(items)
            if row is None:
                new.append(items)
            elif length == len(items):
                states[items] = row.state
            else:
                continued.append((items, length, row))
        for together in _split(layout, continued):
            states.update(self._read_on(model, layout, together))
        if new:
            states.update(self._read(model, layout, new))
        return model.item_logits(torch.stack([states[items] for items in wanted])).float()

    def _read(self, model: MixRec, layout: Layout, new: Sequence[Items]) -> dict[Items, Tensor]:
        """Final states of histories that begin here."""
        states: dict[Items, Tensor] = {}
        bos = layout.bos_token is not None
        for chosen, rows in passes(layout, new, [UNKNOWN_USER] * len(new)):
            read = [new[row] for row in chosen]
            lengths = [bos + _tokens(layout, items) for items in read]
            found = read_rows(model, move(rows, model.backbone.device), lengths, [])
            states.update(self._keep(dict(zip(read, found, strict=True))))
        return states

    def _read_on(
        self, model: MixRec, layout: Layout, continued: Sequence[tuple[Items, int, CachedRow]]
    ) -> dict[Items, Tensor]:
        """Final states of histories with their cached beginnings, whose places they take."""
        past = [row for _, _, row in continued]
        added = [items[length:] for items, length, _ in continued]
        rows = layout.histories(added, [UNKNOWN_USER] * len(added), read_newest=1, cached=[row.tokens for row in past])
        found = read_rows(model, move(rows, model.backbone.device), [_tokens(layout, items) for items in added], past)
        with self._lock:
            for items, length, _ in continued:
                self._forget(items[:length])
        return self._keep({items: row for (items, _, _), row in zip(continued, found, strict=True)})

    def _longest_beginning(self, items: Items) -> tuple[int, CachedRow | None]:
        """Its length and what is cached of it. One of less than half the items is not worth the masks of going on."""
        with self._lock:
            for length in range(len(items), (len(items) - 1) // 2, -1):
                row = self._rows.get(items[:length])
                if row is not None:
                    self._rows.move_to_end(items[:length])
                    self._outcomes["known" if length == len(items) else "continued"] += 1
                    return length, row
            self._outcomes["new"] += 1
        return 0, None

    def _keep(self, found: dict[Items, CachedRow]) -> dict[Items, Tensor]:
        """Returns their states. Called after each pass, so that little more than the bound is ever held."""
        with self._lock:
            for items, row in found.items():
                self._forget(items)
                self._rows[items] = row
                self._bytes += row.bytes
            while self._bytes > self._most_bytes:
                self._forget(next(iter(self._rows)))
        return {items: row.state for items, row in found.items()}

    def _forget(self, items: Items) -> None:
        row = self._rows.pop(items, None)
        if row is not None:
            self._bytes -= row.bytes


def _split(
    layout: Layout, continued: Sequence[tuple[Items, int, CachedRow]]
) -> Iterator[list[tuple[Items, int, CachedRow]]]:
    """In passes of at most `TOKENS_AT_ONCE` tokens, the cached ones counted too: masks and keys grow with them."""
    together: list[tuple[Items, int, CachedRow]] = []
    tokens = 0
    for items, length, row in continued:
        size = row.tokens + _tokens(layout, items[length:])
        if together and tokens + size > TOKENS_AT_ONCE:
            yield together
            together, tokens = [], 0
        together.append((items, length, row))
        tokens += size
    if together:
        yield together


def _tokens(layout: Layout, items: Items) -> int:
    """Of an item: its sentence and its special token."""
    return int(layout.item_tokens.lengths[list(items)].sum()) + len(items)
