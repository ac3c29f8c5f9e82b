"""What enters the first layer: token embeddings, and their projections computed once for each distinct input.

The embeddings are frozen, so the first norm and the first Q, K and V of a token depend on the word alone and need no
backward pass; only the special tokens are trained. A batch of item sentences has few distinct words.

Legend: M tokens, D distinct words, R special tokens of the rows, d hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.data.rows import Rows
from trainers.model.attention import Geometry, Projected
from trainers.model.backbone import Backbone, DecoderLayer
from trainers.model.kernels import rotate


def embed(backbone: Backbone, rows: Rows, special: Tensor) -> Tensor:
    """[M, d] embeddings, with `special` [d] where a special token stands."""
    x = backbone.token_table(rows.tokens)
    positions = backbone.position_embeddings(rows.positions)
    if positions is None:
        return _with_special(x, rows, special.unsqueeze(0))
    return _with_special(x + positions, rows, special + positions[rows.special])


def enter(backbone: Backbone, layer: DecoderLayer, special: Tensor, geometry: Geometry) -> Projected:
    """The normed embeddings and their projections: what the first layer's `attention_norm` and `project` give.

    Where positions are learned, a word at two positions is two inputs, and all that is saved is the backward pass.
    """
    rows = geometry.rows
    positions = backbone.position_embeddings(rows.positions)
    with torch.no_grad():
        if positions is None:
            words, where = backbone.token_table(rows.vocabulary), rows.words
        else:
            words, where = backbone.token_table(rows.tokens) + positions, None
    special = special.unsqueeze(0) if positions is None else special + positions[rows.special]

    def everywhere(of_words: Tensor, of_special: Tensor) -> Tensor:
        return _with_special(of_words.clone() if where is None else of_words.index_select(0, where), rows, of_special)

    with torch.no_grad():
        normed_words = layer.attention_norm(words)
        word_keys, word_values = layer.keys_values(normed_words)
        word_queries = layer.queries(normed_words)
    normed = layer.attention_norm(special)
    keys, values = layer.keys_values(normed)
    rotation = geometry.token_rotation
    return Projected(
        rotate(everywhere(word_queries, layer.queries(normed)), rotation),
        rotate(everywhere(word_keys, keys), rotation),
        everywhere(word_values, values),
        everywhere(normed_words, normed),
        readouts_only=False,
    )


def _with_special(frozen: Tensor, rows: Rows, special: Tensor) -> Tensor:
    """`frozen` [M, ...], no view and used by nothing else, overwritten by `special` ([1, ...] or [R, ...])."""
    return frozen.index_copy_(0, rows.special, special.to(frozen.dtype).expand(len(rows.special), *frozen.shape[1:]))
