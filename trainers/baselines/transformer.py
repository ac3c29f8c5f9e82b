"""The Transformer of SASRec, BERT4Rec and FDSA: post-norm blocks over vectors with learned positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.baselines.sequential import INITIAL_STD

NORM_EPSILON = 1e-12


@dataclass(frozen=True)
class TransformerSize:
    """Of all Transformers of a model."""

    width: int
    layers: int
    heads: int
    dropout: float
    """Of embeddings, of attention weights, inside the feed-forward layers and after each half of a block"""
    inner: int
    """Width of the feed-forward layers"""


class PositionedTransformer(nn.Module):
    """[B, N, d] vectors -> [B, N, d]: adds positions, then norm, dropout and the blocks."""

    def __init__(self, size: TransformerSize, places: int, *, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.positions = nn.Embedding(places, size.width)
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(size.dropout)
        block = nn.TransformerEncoderLayer(
            size.width,
            size.heads,
            dim_feedforward=size.inner,
            dropout=size.dropout,
            activation="gelu",
            layer_norm_eps=NORM_EPSILON,
            batch_first=True,
        )
        self.blocks = nn.TransformerEncoder(block, size.layers, enable_nested_tensor=False)

    def forward(self, vectors: Tensor, is_padding: Tensor) -> Tensor:
        """`is_padding` [B, N] holds no place before a row's last item."""
        length = vectors.shape[1]
        hidden = self.dropout(self.norm(vectors + self.positions.weight[:length]))
        if self.is_causal:
            # Padding lies after a row's items, so the causal mask hides it from all that is read.
            mask = nn.Transformer.generate_square_subsequent_mask(length, device=hidden.device)
            return self.blocks(hidden, mask=mask, is_causal=True)  # type: ignore[no-any-return]
        return self.blocks(hidden, src_key_padding_mask=is_padding)  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """N(0, .02^2) for all weights of linear maps, attention and embeddings; zero for biases; norms stay at one."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            continue
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=INITIAL_STD)
            elif "bias" in name:
                nn.init.zeros_(parameter)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx] = 0
