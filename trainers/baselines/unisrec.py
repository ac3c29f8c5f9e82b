"""UniSRec (Hou et al., KDD 2022), without pre-training on other data, as the paper ran it.

Legend: B rows, N places of a row, I items, t width of a text vector, d width, G experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from trainers.baselines.rows import Rows
from trainers.baselines.sequential import INITIAL_STD, SequentialModel, newest, next_items
from trainers.baselines.transformer import PositionedTransformer, TransformerSize, initialise
from trainers.model.item_loss import item_cross_entropy

NOISE_AT_LEAST = 1e-2
"""Deviation of the gate's noise in training at least"""


class MixtureOfExpertsAdaptor(nn.Module):
    """[..., t] text vectors -> [..., d]: parametric whitenings, mixed by a gate that is noisy in training (3.1.1)."""

    def __init__(self, text_width: int, width: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.shifts = nn.Parameter(torch.zeros(experts, text_width))
        self.maps = nn.Parameter(torch.empty(experts, text_width, width))
        self.gate = nn.Parameter(torch.zeros(text_width, experts))
        self.noise = nn.Parameter(torch.zeros(text_width, experts))

    def start(self) -> None:
        """Unshifted, with an even gate that has no noise but the least."""
        nn.init.normal_(self.maps, std=INITIAL_STD)
        for parameter in (self.shifts, self.gate, self.noise):
            nn.init.zeros_(parameter)

    def forward(self, texts: Tensor) -> Tensor:
        logits = texts @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * (softplus(texts @ self.noise) + NOISE_AT_LEAST)
        whitened = [
            (self.dropout(texts) - shift) @ weight for shift, weight in zip(self.shifts, self.maps, strict=True)
        ]
        return torch.einsum("...g,g...d->...d", logits.softmax(dim=-1), torch.stack(whitened))


class UniSRec(SequentialModel):
    """A causal Transformer over what the adaptor makes of the items' texts; scores are cosines over a temperature.

    `transductive` adds a vector of the item's own, which a new item has not (3.3.2); without it the model is inductive.

    Args:
        texts: [I, t] text vectors, by any encoder.
    """

    def __init__(
        self,
        history: int,
        size: TransformerSize,
        texts: Tensor,
        *,
        experts: int,
        adaptor_dropout: float,
        temperature: float,
        transductive: bool,
    ) -> None:
        super().__init__(len(texts), history)
        self.temperature = temperature
        self.texts = nn.Buffer(torch.cat([texts, texts.new_zeros(1, texts.shape[1])]), persistent=False)
        self.adaptor = MixtureOfExpertsAdaptor(texts.shape[1], size.width, experts, adaptor_dropout)
        self.item_embedding = (
            nn.Embedding(self.num_items + 1, size.width, padding_idx=self.num_items) if transductive else None
        )
        self.transformer = PositionedTransformer(size, history, is_causal=True)
        initialise(self)
        self.adaptor.start()

    @property
    def text_vectors(self) -> Tensor:
        return self.texts[: self.num_items]

    def item_vectors(self) -> Tensor:
        """[I + 1, d], of all items and of the index that fills rows up."""
        vectors: Tensor = self.adaptor(self.texts)
        return vectors if self.item_embedding is None else vectors + self.item_embedding.weight

    def states(self, items: Tensor, vectors: Tensor) -> Tensor:
        """[B, N] items -> [B, N, d], where a place depends on itself and what lies before it."""
        states: Tensor = self.transformer(vectors[items], items == self.num_items)
        return states

    def loss_terms(self, rows: Rows) -> tuple[Tensor, int]:
        inputs, targets, counted = next_items(rows, self.num_items)
        # The adaptor's dropout and noise differ between what is read and what is ranked, as in two passes.
        states = self.states(inputs, self.item_vectors())[counted]
        ranked = normalize(self.item_vectors()[: self.num_items], dim=-1)
        asked = normalize(states, dim=-1) / self.temperature
        return item_cross_entropy(asked, ranked, ranked.new_zeros(self.num_items), targets[counted]), int(counted.sum())

    def scores(self, rows: Rows) -> Tensor:
        vectors = self.item_vectors()
        last = newest(self.states(rows.items, vectors), rows)
        return normalize(last, dim=-1) @ normalize(vectors[: self.num_items], dim=-1).T / self.temperature
