"""Items that the catalogue lacks, by their text alone: cold items.

W_item has no row for them. But the alignment loss (paper, 2.2.2) trains W_item to tell from the `[ALIGN]` state of a
text, and by default of the item's vector of M_cf, which item that is, and so has an answer for any text: how probable
it is that the text is of item i. A new item, which has no such vector, stands for the items that its text could be of,

    log sum_i p(i | text) p(i | history)

the log-probability that the next item is one that the text describes. For the text of an item that the model recognises
this is the item's own log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.errors import UserError
from trainers.package import Package
from trainers.recommend import Query, Recommender, indices
from trainers.similar import align_states, aligned


@dataclass(frozen=True)
class NewItem:
    """One item that the catalogue lacks."""

    rank: int
    text: str
    score: float
    """As above, in nats"""


def rank_new(package: Recommender, query: Query, texts: Sequence[str]) -> list[NewItem]:
    """The `query.k` best of `texts`, one or more, after a history. Of `query` the history and `k` are read.

    Raises:
        UserError: an unknown item, an empty text, or a model that was not trained with the alignment loss.
    """
    mixrec = aligned(package)
    if not mixrec.config.training.lambda_align:
        raise UserError(
            "this model was trained without the alignment loss (training.lambda_align is 0), so it cannot tell what a "
            "text is like; promote one that was trained with it"
        )
    if query.texts:
        after = mixrec.score_texts([query.history])
    else:
        after = mixrec.score([indices(mixrec.catalogue, query.history)])
    scores = as_mixtures(after, identified(mixrec, texts))[0]
    best = scores.topk(min(query.k, len(texts)))
    return [
        NewItem(rank, texts[place], score)
        for rank, (place, score) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start=1)
    ]


def identified(package: Package, texts: Sequence[str]) -> Tensor:
    """[N, I] logits of which item of the catalogue each text is of. Raises UserError for an empty text."""
    layout, (items,) = package.with_texts([texts])
    with torch.inference_mode():
        return package.model.item_logits(align_states(package.model, layout, items.tolist())).float()


def as_mixtures(after: Tensor, of_texts: Tensor) -> Tensor:
    """[B, N] scores of texts after histories.

    Args:
        after: [B, I] logits of the catalogue after each history.
        of_texts: [N, I], as `identified`.
    """
    after, of_texts = after.log_softmax(dim=-1), of_texts.to(after.device).log_softmax(dim=-1)
    # One text after another: [B, N, I] would not fit.
    return torch.stack([(after + of_text).logsumexp(dim=-1) for of_text in of_texts], dim=1)
