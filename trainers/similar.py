"""Items of the catalogue by the cosine of their `[ALIGN]` states (paper, 2.2.2), less the mean of the catalogue's.

A large component that all states of a language model share says nothing of an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainers.data.batches import Layout
from trainers.device import move
from trainers.errors import UserError
from trainers.evaluate import of_like_length
from trainers.model.mixrec import MixRec
from trainers.package import Package
from trainers.recommend import Recommender, indices


@dataclass(frozen=True)
class SimilarItem:
    """One item of the catalogue."""

    rank: int
    item: str
    """Raw identifier"""
    title: str
    cosine: float
    """Of its `[ALIGN]` state and the other one's, both centred"""


def similar_to_item(package: Recommender, item: str, k: int = 10) -> list[SimilarItem]:
    """The `k` items nearest to `item` of the catalogue, which is not among them.

    Raises:
        UserError: the catalogue lacks `item`, k below 1, or the model has no trained `[ALIGN]` states.
    """
    mixrec = aligned(package)
    (index,) = indices(mixrec.catalogue, [item])
    return _nearest(mixrec, align_states(mixrec.model, mixrec.layout, [int(index)])[0], k, left_out=int(index))


def similar_to_text(package: Recommender, text: str, k: int = 10) -> list[SimilarItem]:
    """The `k` items nearest to what `text` describes, read as a title that M_cf does not know.

    Raises:
        UserError: an empty text, k below 1, or the model has no trained `[ALIGN]` states.
    """
    mixrec = aligned(package)
    layout, (items,) = mixrec.with_texts([[text]])
    return _nearest(mixrec, align_states(mixrec.model, layout, items.tolist())[0], k, text_alone=True)


def align_states(model: MixRec, layout: Layout, items: Sequence[int]) -> Tensor:
    """[N, d] `[ALIGN]` states of `items`, N at least 1, each read in a row of its own (2.2.2)."""
    lengths = layout.item_tokens.lengths[list(items)] + len(layout.prompt) + 1
    states = torch.empty(len(items), model.backbone.width, device=model.backbone.device)
    with torch.inference_mode():
        for chosen in of_like_length(lengths):
            rows = move(layout.alignments([items[place] for place in chosen]), states.device)
            states[torch.from_numpy(chosen).to(states.device)] = model.encode(rows).float()
    return states


def _nearest(
    package: Package, state: Tensor, k: int, left_out: int | None = None, *, text_alone: bool = False
) -> list[SimilarItem]:
    """Those nearest to `state` [d]; with `text_alone`, items are read without vectors of M_cf, as it was."""
    if k < 1:
        raise UserError(f"k is {k}, but must be at least 1")
    catalogue = package.catalogue
    layout = replace(package.layout, align_column=False) if text_alone else package.layout
    every = align_states(package.model, layout, range(len(catalogue)))
    centre = every.mean(dim=0)
    cosines = normalize(every - centre, dim=-1) @ normalize(state - centre, dim=-1)
    if left_out is not None:
        cosines[left_out] = -float("inf")
    best = cosines.topk(min(k, len(catalogue) - (left_out is not None)))
    return [
        SimilarItem(rank, catalogue.ids[item], catalogue.titles[item], cosine)
        for rank, (item, cosine) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start=1)
    ]


def aligned(package: Recommender) -> Package:
    """`package`, where it is one of MixRec whose training had a loss that reads `[ALIGN]`."""
    if not isinstance(package, Package):
        raise UserError(
            "only MixRec encodes items by their text: this is another model, for which that is not supported"
        )
    training = package.config.training
    if not (training.lambda_align or training.lambda_contrastive):
        raise UserError(
            "this model was trained with neither alignment nor contrastive loss (training.lambda_align and "
            "training.lambda_contrastive are 0), so its vectors of items say nothing"
        )
    return package
