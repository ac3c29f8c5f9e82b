"""The collaborative model M_cf: its vectors and its own loss (paper, 2.3.2; rulings 9 and 17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainers.data.step import CollaborativeDraw

Parameters = Mapping[str, Tensor]


def mean_of(terms: Sequence[Tensor]) -> Tensor:
    """Every loss is the mean of its own terms (ruling 6); without terms it is zero."""
    return torch.stack(list(terms)).mean() if terms else torch.zeros((), dtype=torch.float64)


def user_vector(parameters: Parameters, model: str, user: int) -> Tensor:
    """e_user [c]: for NCF the concatenation of its GMF and MLP embeddings."""
    if model == "mf":
        return parameters["collaborative.user.weight"][user]
    return torch.cat(
        [parameters["collaborative.user_gmf.weight"][user], parameters["collaborative.user_mlp.weight"][user]]
    )


def item_vector(parameters: Parameters, model: str, item: int) -> Tensor:
    """e_item [c]"""
    if model == "mf":
        return parameters["collaborative.item.weight"][item]
    return torch.cat(
        [parameters["collaborative.item_gmf.weight"][item], parameters["collaborative.item_mlp.weight"][item]]
    )


def collaborative_score(parameters: Parameters, model: str, user: int, item: int) -> Tensor:
    """MF: <u, i> + bias of the item. NCF (He et al., 2017): the logit over [u * i, hidden(u, i)]."""
    u, i = user_vector(parameters, model, user), item_vector(parameters, model, item)
    if model == "mf":
        return (u * i).sum() + parameters["collaborative.item_bias.weight"][item, 0]
    user_gmf, user_mlp = u.chunk(2)
    item_gmf, item_mlp = i.chunk(2)
    hidden = torch.relu(
        parameters["collaborative.hidden.weight"] @ torch.cat([user_mlp, item_mlp])
        + parameters["collaborative.hidden.bias"]
    )
    features = torch.cat([user_gmf * item_gmf, hidden])
    return (parameters["collaborative.output.weight"] @ features + parameters["collaborative.output.bias"])[0]


def collaborative_loss(parameters: Parameters, model: str, draws: Sequence[CollaborativeDraw]) -> Tensor:
    """L_cf: BPR over (positive, negative) pairs for MF, binary cross entropy over all terms for NCF."""
    terms = []
    for draw in draws:
        positive = collaborative_score(parameters, model, draw.user, draw.positive)
        negatives = [collaborative_score(parameters, model, draw.user, item) for item in draw.negatives]
        if model == "mf":
            terms += [-torch.log(torch.sigmoid(positive - negative)) for negative in negatives]
        else:
            terms += [-torch.log(torch.sigmoid(positive))]
            terms += [-torch.log(torch.sigmoid(-negative)) for negative in negatives]
    return mean_of(terms)
