"""BERT4Rec (Sun et al., CIKM 2019): a bidirectional Transformer that fills in masked items.

Legend: B rows, N places of a row, I items, d width. Index I fills rows up, index I + 1 is the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.baselines.rows import Rows
from trainers.baselines.sequential import SequentialModel
from trainers.baselines.transformer import NORM_EPSILON, PositionedTransformer, TransformerSize, initialise
from trainers.model.item_loss import item_cross_entropy


class BERT4Rec(SequentialModel):
    """Trained on rows some of whose items are masked; asked with a mask behind the history.

    A share `last_share` of the rows has only its last item masked, as the model will be asked; of the others each
    item is masked with probability `mask_share`, one at least.
    """

    def __init__(
        self, num_items: int, history: int, size: TransformerSize, *, mask_share: float, last_share: float
    ) -> None:
        super().__init__(num_items, history)
        self.mask_share, self.last_share, self.mask = mask_share, last_share, num_items + 1
        self.item_embedding = nn.Embedding(num_items + 2, size.width, padding_idx=num_items)
        self.transformer = PositionedTransformer(size, history + 1, is_causal=False)
        self.output = nn.Sequential(
            nn.Linear(size.width, size.width), nn.GELU(), nn.LayerNorm(size.width, eps=NORM_EPSILON)
        )
        self.output_bias = nn.Parameter(torch.zeros(num_items))
        initialise(self)

    def states(self, items: Tensor, places: Tensor) -> Tensor:
        """[B, N] items -> [Q, d] at `places` [B, N]."""
        hidden = self.transformer(self.item_embedding(items), items == self.num_items)
        states: Tensor = self.output(hidden[places])
        return states

    def loss_terms(self, rows: Rows) -> tuple[Tensor, int]:
        hidden = self._places_to_hide(rows)
        masked = rows.items.masked_fill(hidden, self.mask)
        vectors = self.item_embedding.weight[: self.num_items]
        total = item_cross_entropy(self.states(masked, hidden), vectors, self.output_bias, rows.items[hidden])
        return total, int(hidden.sum())

    def _places_to_hide(self, rows: Rows) -> Tensor:
        """[B, N]"""
        items = rows.items
        draws = torch.rand(items.shape, device=items.device).masked_fill(items == self.num_items, 2.0)
        some = draws < torch.clamp(draws.amin(dim=1, keepdim=True) * (1 + 1e-6), min=self.mask_share)
        places = torch.arange(items.shape[1], device=items.device)
        only_last = places == rows.last.unsqueeze(1)
        is_last = torch.rand(len(items), 1, device=items.device) < self.last_share
        return torch.where(is_last, only_last, some)

    def scores(self, rows: Rows) -> Tensor:
        items = torch.cat([rows.items, rows.items.new_full((len(rows.items), 1), self.num_items)], dim=1)
        asked = torch.arange(items.shape[1], device=items.device) == rows.lengths.unsqueeze(1)
        states = self.states(items.masked_fill(asked, self.mask), asked)
        return states @ self.item_embedding.weight[: self.num_items].T + self.output_bias
