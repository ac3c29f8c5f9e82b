"""FDSA (Zhang et al., IJCAI 2019): self-attention over items and, apart from it, over their features.

Legend: B rows, N places of a row, I items, F features of an item, V features in all, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.baselines.sequential import CausalModel
from trainers.baselines.transformer import NORM_EPSILON, PositionedTransformer, TransformerSize, initialise


class FDSA(CausalModel):
    """Two causal Transformers whose states are put side by side and mapped back to the item vectors' width.

    Norm and dropout behind that map are RecBole's and not of the paper's equations; without them it over-fits early.

    Args:
        features: [I + 1, F] features of each item, filled up with V; the last row, of no item, holds V alone.
        num_features: V
    """

    def __init__(
        self, num_items: int, history: int, size: TransformerSize, features: Tensor, num_features: int
    ) -> None:
        super().__init__(num_items, history, size.width)
        self.features = nn.Buffer(features, persistent=False)
        self.num_features = num_features
        self.feature_embedding = nn.Embedding(num_features + 1, size.width, padding_idx=num_features)
        self.attention = nn.Linear(size.width, 1)
        self.of_items = PositionedTransformer(size, history, is_causal=True)
        self.of_features = PositionedTransformer(size, history, is_causal=True)
        self.output = nn.Linear(2 * size.width, size.width)
        self.output_norm = nn.LayerNorm(size.width, eps=NORM_EPSILON)
        self.output_dropout = nn.Dropout(size.dropout)
        initialise(self)

    def feature_vectors(self, items: Tensor) -> Tensor:
        """[B, N] items -> [B, N, d]: their features' vectors, weighted by attention; zero where there are none."""
        features = self.features[items]  # [B, N, F]
        vectors = self.feature_embedding(features)  # [B, N, F, d]
        logits = self.attention(vectors).squeeze(-1)
        missing = features == self.num_features
        weights = logits.masked_fill(missing, torch.finfo(logits.dtype).min).softmax(dim=-1).masked_fill(missing, 0.0)
        return torch.einsum("bnf,bnfd->bnd", weights, vectors)

    def states(self, items: Tensor) -> Tensor:
        is_padding = items == self.num_items
        of_items = self.of_items(self.item_embedding(items), is_padding)
        of_features = self.of_features(self.feature_vectors(items), is_padding)
        found: Tensor = self.output_norm(self.output(torch.cat([of_items, of_features], dim=-1)))
        return self.output_dropout(found)  # type: ignore[no-any-return]
