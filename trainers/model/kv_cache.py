"""Keys and values of rows that were read, so that a longer history costs its new items alone.

In the causal branch a token sees what lies before it, in the context branch its own item: items that are appended
change nothing about earlier ones. So the keys and values of every layer are kept, and a later pass reads new items
only, at the positions that they have in the whole row. Exact up to rounding.

Legend: n tokens of a row, G key-value heads, e head size, d hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainers.config import ModelConfig
from trainers.data.rows import Rows
from trainers.model.attention import Geometry, Projected
from trainers.model.backbone import Backbone
from trainers.model.mixrec import MixRec, Pass

Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys, positions applied, and values of one row, both [n, G, e], layer by layer"""


@dataclass(frozen=True)
class CachedRow:
    """What is kept of one history."""

    layers: Layers
    state: Tensor
    """[d] final state at its newest item"""

    @property
    def tokens(self) -> int:
        return len(self.layers[0][0])

    @property
    def bytes(self) -> int:
        return self.state.nbytes + sum(part.nbytes for pair in self.layers for part in pair)


def can_cache(config: ModelConfig) -> bool:
    """Whether models of `config` can be read so: all but a control of Fig. 8, whose masks are its own."""
    return config.kind != "mixrec" or config.second_mask != "causal+columns"


@dataclass(frozen=True)
class _CachingPass(Pass):
    """A pass that sees cached keys and values before its own, and keeps all of them."""

    past: Sequence[Layers] = ()
    """Of each row; empty where the rows begin here"""
    lengths: Sequence[int] = ()
    """Tokens of each row, the cached ones not counted"""
    kept: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    """Keys and values of each row, layer by layer"""

    def project(self, index: int, x: Tensor) -> Projected:
        projected = super().project(index, x)
        lengths = list(self.lengths)
        keys, values = list(torch.split(projected.keys, lengths)), list(torch.split(projected.values, lengths))
        if self.past:
            keys = [torch.cat([row[index][0], new]) for row, new in zip(self.past, keys, strict=True)]
            values = [torch.cat([row[index][1], new]) for row, new in zip(self.past, values, strict=True)]
            projected = replace(projected, keys=torch.cat(keys), values=torch.cat(values))
        self.kept.append((keys, values))
        return projected


@torch.inference_mode()
def read_rows(model: MixRec, rows: Rows, lengths: Sequence[int], past: Sequence[CachedRow]) -> list[CachedRow]:
    """Read rows to their newest items.

    Args:
        rows: one readout a row; where they continue, `Layout.histories(..., cached=...)` with the tokens of `past`.
        lengths: [B] tokens of each in `rows`.
        past: [B] what is cached of each, or nothing where they begin here.
    """
    kept: list[tuple[list[Tensor], list[Tensor]]] = []

    def make_pass(backbone: Backbone, rows: Rows, special: Tensor, columns: Tensor | None) -> Pass:
        geometry = Geometry.of(backbone, rows, columns)
        return _CachingPass(backbone, special[rows.kind], geometry, [row.layers for row in past], lengths, kept)

    states = model.encode(rows, make_pass)
    # Copied where it is a part of a tensor, which would keep all of that in memory.
    own = torch.clone if not past else lambda part: part
    return [
        CachedRow(tuple((own(keys[row]), own(values[row])) for keys, values in kept), states[row].clone())
        for row in range(len(lengths))
    ]
