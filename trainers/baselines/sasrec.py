"""SASRec (Kang and McAuley, ICDM 2018), with the cross entropy over the whole catalogue or gBCE over a sample of it
(Petrov and Macdonald, RecSys 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.baselines.sequential import CausalModel
from trainers.baselines.transformer import PositionedTransformer, TransformerSize, initialise
from trainers.model.item_loss import gbce


@dataclass(frozen=True)
class SampledLoss:
    """gBCE over a sample that all rows of a step share."""

    items: int
    calibration: float


class SASRec(CausalModel):
    """A causal Transformer over item vectors."""

    def __init__(self, num_items: int, history: int, size: TransformerSize, sampled: SampledLoss | None = None) -> None:
        super().__init__(num_items, history, size.width)
        self.sampled = sampled
        self.transformer = PositionedTransformer(size, history, is_causal=True)
        initialise(self)

    def states(self, items: Tensor) -> Tensor:
        states: Tensor = self.transformer(self.item_embedding(items), items == self.num_items)
        return states

    def item_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        if self.sampled is None:
            return super().item_loss(states, targets)
        vectors = self.item_embedding.weight[: self.num_items]
        drawn = torch.randperm(self.num_items, device=states.device)[: self.sampled.items]
        bias = vectors.new_zeros(self.num_items)
        return gbce(states, vectors, bias, targets, drawn, calibration=self.sampled.calibration)
