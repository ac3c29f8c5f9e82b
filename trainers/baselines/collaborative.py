"""MF and NCF on their own: the models that lend their vectors to MixRec, as recommenders.

Legend: B users, N interactions, k negatives of each, I items.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.baselines.baseline import Baseline
from trainers.collaborative_pretraining import Interactions, TrainingInteractions
from trainers.data.sequence_data import SequenceData, Split
from trainers.model.collaborative import CollaborativeModel

FOLD_IN_STEPS, FOLD_IN_RATE = 100, 0.05
"""Of Adam, for the vector of a user who was not trained on"""


class CollaborativeBaseline(Baseline[Interactions]):
    """A collaborative model, trained on the interactions of the training part in no order."""

    def __init__(self, model: CollaborativeModel, negatives: int) -> None:
        super().__init__()
        self.model, self.negatives, self.num_users = model, negatives, model.num_users

    def training_part(self, data: SequenceData) -> TrainingInteractions:
        return TrainingInteractions.of(data, self.negatives)

    def loss_terms(self, batch: Interactions) -> tuple[Tensor, int]:
        return self.model.loss_terms(*batch.parts)

    def score_users(self, data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:  # noqa: ARG002
        """The same for both splits: what lies between training and test item is not learned from."""
        return self.model.score_all(torch.from_numpy(users).to(next(self.parameters()).device))

    def score_history(self, items: NDArray[np.int32]) -> Tensor:
        with torch.inference_mode(mode=False), torch.enable_grad():
            newcomer = self._with_one_user(items)
        return newcomer.score_all(torch.zeros(1, dtype=torch.int64, device=next(self.parameters()).device))[0].detach()

    def _with_one_user(self, items: NDArray[np.int32]) -> CollaborativeModel:
        """The model with one new user in place of all known ones. The user's vector starts as their mean and is learned
        from `items`; everything else stays as it is."""
        known, device = self.model, next(self.parameters()).device
        newcomer = type(known)(1, known.num_items, known.dim).to(device)
        state = {
            name: value.mean(dim=0, keepdim=True) if name.startswith("user") else value.clone()
            for name, value in known.state_dict().items()
        }
        newcomer.load_state_dict(state)
        taken = torch.from_numpy(np.unique(items).astype(np.int64)).to(device)
        others = np.setdiff1d(np.arange(known.num_items), items)
        if not len(others):
            return newcomer
        learned = [value for name, value in newcomer.named_parameters() if name.startswith("user")]
        optimizer, rng = torch.optim.Adam(learned, lr=FOLD_IN_RATE), np.random.default_rng(0)
        for _ in range(FOLD_IN_STEPS):
            negatives = torch.from_numpy(rng.choice(others, size=(len(taken), self.negatives))).to(device)
            total, terms = newcomer.loss_terms(torch.zeros_like(taken), taken, negatives)
            optimizer.zero_grad(set_to_none=True)
            (total / terms).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return newcomer
