"""M_cf: the collaborative model that is trained jointly and lends its vectors to the context branch (paper, 2.3.2).

Shapes: N positives, k negatives of each, B users, I items, U users in all, c = `dim`.
Parameters start from N(0, .01^2) for embeddings, as both models' authors do, and from PyTorch's default for the
linear layers; the item bias starts at zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING_STD = 0.01
HIDDEN_VALUES_AT_ONCE = 1 << 24
"""Values of NCF's hidden layer that `score_all` holds at a time (64 MB in float32)."""


class CollaborativeModel(nn.Module, ABC):
    """What MixRec, its loss and the evaluation ask of a collaborative model."""

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__()
        self.num_users, self.num_items, self.dim = num_users, num_items, dim

    users: tuple[str, ...]
    """Names of the parameters that have a row for each user"""
    items: tuple[str, ...]
    """Names of those that have one for each item"""

    @abstractmethod
    def user_vectors(self, users: Tensor) -> Tensor:
        """e_user: [...] user indices -> [..., c]."""

    @abstractmethod
    def item_vectors(self, items: Tensor) -> Tensor:
        """e_item: [...] item indices -> [..., c]."""

    @abstractmethod
    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Preference of [N] users for [N, m] items -> [N, m], without an upper or lower bound."""

    @abstractmethod
    def score_all(self, users: Tensor) -> Tensor:
        """Preference of [B] users for every item -> [B, I]; equals `score`."""

    @abstractmethod
    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, int]:
        """L_cf as (sum of its terms, number of terms), so that several workers can divide by the global number.

        Args:
            users: [N]
            positives: [N] the item that the user took.
            negatives: [N, k] items that the user did not take in the training part (ruling 17).
        """


class NCF(CollaborativeModel):
    """Neural matrix factorisation (He et al., WWW 2017), trained with binary cross entropy.

    GMF and MLP parts have embeddings of width c/2 each; e is their concatenation (ruling 17).
    """

    users = ("user_gmf.weight", "user_mlp.weight")
    items = ("item_gmf.weight", "item_mlp.weight")

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__(num_users, num_items, dim)
        half = dim // 2
        self.user_gmf = nn.Embedding(num_users, half)
        self.item_gmf = nn.Embedding(num_items, half)
        self.user_mlp = nn.Embedding(num_users, half)
        self.item_mlp = nn.Embedding(num_items, half)
        self.hidden = nn.Linear(dim, half)
        self.output = nn.Linear(dim, 1)
        for embedding in (self.user_gmf, self.item_gmf, self.user_mlp, self.item_mlp):
            nn.init.normal_(embedding.weight, std=EMBEDDING_STD)

    def user_vectors(self, users: Tensor) -> Tensor:
        return torch.cat([self.user_gmf(users), self.user_mlp(users)], dim=-1)

    def item_vectors(self, items: Tensor) -> Tensor:
        return torch.cat([self.item_gmf(items), self.item_mlp(items)], dim=-1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        user_mlp = self.user_mlp(users).unsqueeze(1).expand(-1, items.shape[1], -1)  # [N, m, c/2]
        product = self.user_gmf(users).unsqueeze(1) * self.item_gmf(items)  # [N, m, c/2]
        hidden = F.relu(self.hidden(torch.cat([user_mlp, self.item_mlp(items)], dim=-1)))  # [N, m, c/2]
        logits: Tensor = self.output(torch.cat([product, hidden], dim=-1)).squeeze(-1)
        return logits

    def score_all(self, users: Tensor) -> Tensor:
        # Both linear layers split by the halves of their input: nothing of width c is laid out for B x I pairs.
        half = self.dim // 2
        of_user, of_item = self.hidden.weight[:, :half], self.hidden.weight[:, half:]
        of_product, of_hidden = self.output.weight[0, :half], self.output.weight[0, half:]
        users_hidden = self.user_mlp(users) @ of_user.T + self.hidden.bias  # [B, c/2]
        users_gmf = self.user_gmf(users) * of_product  # [B, c/2]
        step = max(1, HIDDEN_VALUES_AT_ONCE // max(1, len(users) * half))
        columns = []
        for first in range(0, self.num_items, step):
            gmf, mlp = self.item_gmf.weight[first : first + step], self.item_mlp.weight[first : first + step]
            hidden = F.relu(users_hidden.unsqueeze(1) + (mlp @ of_item.T).unsqueeze(0))  # [B, step, c/2]
            columns.append(users_gmf @ gmf.T + hidden @ of_hidden)
        return torch.cat(columns, dim=1) + self.output.bias

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, int]:
        logits = self.score(users, torch.cat([positives.unsqueeze(1), negatives], dim=1))  # [N, 1 + k]
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum"), logits.numel()


class MF(CollaborativeModel):
    """Matrix factorisation with an item bias, trained with BPR (Rendle et al., UAI 2009)."""

    users = ("user.weight",)
    items = ("item.weight", "item_bias.weight")

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__(num_users, num_items, dim)
        self.user = nn.Embedding(num_users, dim)
        self.item = nn.Embedding(num_items, dim)
        self.item_bias = nn.Embedding(num_items, 1)
        nn.init.normal_(self.user.weight, std=EMBEDDING_STD)
        nn.init.normal_(self.item.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.item_bias.weight)

    def user_vectors(self, users: Tensor) -> Tensor:
        vectors: Tensor = self.user(users)
        return vectors

    def item_vectors(self, items: Tensor) -> Tensor:
        vectors: Tensor = self.item(items)
        return vectors

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        scores: Tensor = (self.user(users).unsqueeze(1) * self.item(items)).sum(-1) + self.item_bias(items).squeeze(-1)
        return scores

    def score_all(self, users: Tensor) -> Tensor:
        scores: Tensor = self.user(users) @ self.item.weight.T + self.item_bias.weight.T
        return scores

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, int]:
        scores = self.score(users, torch.cat([positives.unsqueeze(1), negatives], dim=1))  # [N, 1 + k]
        margins = scores[:, :1] - scores[:, 1:]  # [N, k]
        return -F.logsigmoid(margins).sum(), margins.numel()


def build_collaborative(kind: Literal["ncf", "mf"], num_users: int, num_items: int, dim: int) -> CollaborativeModel:
    """A fresh M_cf with random parameters from torch's global generator."""
    return {"ncf": NCF, "mf": MF}[kind](num_users, num_items, dim)
