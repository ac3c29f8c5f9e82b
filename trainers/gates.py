"""What the gates of a MixRec model make of a history: how much of its reading is inside single items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainers.data.batches import Layout
from trainers.device import move
from trainers.evaluate import UNKNOWN_USER
from trainers.model.damoe import DamoeLayer
from trainers.model.mixrec import MixRec
from trainers.package import Package
from trainers.recommend import Query, Recommender, indices


@dataclass(frozen=True)
class GateShare:
    """The gates at one item of a history."""

    item: str
    """Identifier, or the text as it was given"""
    title: str
    """The same for a text"""
    context_share: float
    """Between 0 and 1: mean beta_2, the weight of the context-masked attention, against beta_1 of the causal one"""


def has_gates(package: Recommender) -> bool:
    """Whether the model weighs a context-masked branch: MixRec does, its controls and all other models do not."""
    if not isinstance(package, Package):
        return False
    return package.config.model.kind == "mixrec" and package.config.model.second_mask == "context"


def gate_shares(package: Recommender, query: Query) -> list[GateShare]:
    """Of each item of the history that the model reads, oldest first; nothing for a model without such gates."""
    if not isinstance(package, Package) or not has_gates(package):
        return []
    if query.texts:
        layout, (items,) = package.with_texts([query.history])
        titles: Sequence[str] = query.history
    else:
        layout, items = package.layout, indices(package.catalogue, query.history)
        titles = [package.catalogue.titles[item] for item in items]
    (read,) = package.windows(layout, [items])
    shares = context_shares(package.model, layout, read)
    told = list(zip(query.history, titles, strict=True))[-len(read) :]
    return [GateShare(item, title, share) for (item, title), share in zip(told, shares, strict=True)]


def context_shares(model: MixRec, layout: Layout, items: Sequence[int]) -> list[float]:
    """beta_2 of 2.3.3 at each of `items` [n], a history of an unknown user, by a model of kind `mixrec`.

    The mean over the DAMoE layers of the mean over the item's tokens, its `[SEQ]` among them. The backbone's last layer
    computes nothing but states that are read: there it is the `[SEQ]` alone, of every item as in training.
    """
    rows = layout.histories([items], [UNKNOWN_USER])
    with recorded(model) as gates, torch.inference_mode():
        model.encode(move(rows, model.backbone.device))
    item = np.searchsorted(rows.special.numpy(), np.arange(len(rows.tokens)))  # of each token
    if layout.bos_token is not None:
        item[0] = -1
    of_layers = []
    for beta in gates:
        # Every item has tokens besides its [SEQ]: as many gates as readouts are those of the readouts.
        places = item if len(beta) == len(item) else item[rows.readouts.numpy()]
        share = beta[:, 1].double().cpu().numpy()
        of_layers.append([share[places == number].mean() for number in range(len(items))])
    return [float(share) for share in np.mean(of_layers, axis=0)]


@contextmanager
def recorded(model: MixRec) -> Iterator[list[Tensor]]:
    """A list that gets beta, [tokens, 2], of each DAMoE layer from the input up, whenever `model` reads meanwhile.

    A forward hook on each gate, so that passes outside cost and compute what they always do. Not for a model whose
    layers are compiled, nor while other threads use it.
    """
    found: list[Tensor] = []

    def record(_gate: nn.Module, _given: tuple[Tensor, ...], beta: Tensor) -> None:
        found.append(beta)

    with ExitStack() as hooks:
        for layer in model.layers:
            if isinstance(layer, DamoeLayer):
                hooks.enter_context(layer.gate.register_forward_hook(record))
        yield found
