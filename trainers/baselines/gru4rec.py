"""GRU4Rec (Hidasi et al., ICLR 2016; Tan et al., DLRS 2016), with the cross entropy over the whole catalogue."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.baselines.sequential import CausalModel


class GRU4Rec(CausalModel):
    """A recurrent network over item vectors; its states go through one linear map back to the vectors' width."""

    def __init__(self, num_items: int, history: int, *, width: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__(num_items, history, width)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(width, hidden, layers, bias=False, batch_first=True)
        self.output = nn.Linear(hidden, width)
        nn.init.xavier_normal_(self.item_embedding.weight)
        for weight in self.gru.parameters():
            nn.init.xavier_uniform_(weight)

    def states(self, items: Tensor) -> Tensor:
        found: Tensor = self.output(self.gru(self.dropout(self.item_embedding(items)))[0])
        return found
