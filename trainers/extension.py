"""A trained model over a newer catalogue, without any training: where an update begins, and what it has to beat.

Items keep their rows of W_item and of M_cf. A new item gets the mean of all rows, weighted by what its text could be
of: the alignment loss (paper, 2.2.2) trained W_item to give p(i | text) for any text (`trainers/new_items.py`). Vectors
of users are not carried over: a package does not say whose they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import checkpoint
from trainers.data.item_text import tokenize_items
from trainers.data.sequence_data import SequenceData
from trainers.model.mixrec import MixRec
from trainers.model.tables import tables_of_items, tables_of_users
from trainers.package import Package
from trainers.similar import align_states
from trainers.start import Start

_ITEMS_AT_ONCE = 256
_NEW = -1


def extended(package: Package, data: SequenceData) -> Package:
    """`package` with the catalogue of `data`, whose items it may not all know; items that `data` lacks are gone.

    To M_cf every user is unknown; new items are read by their texts alone.

    Raises:
        DataError: an item without tokens.
    """
    catalogue, config = data.catalogue, package.config
    places = np.array([package.catalogue.index.get(item, _NEW) for item in catalogue.ids])
    layout = replace(
        package.layout,
        item_tokens=tokenize_items(catalogue.sentences, package.tokenizer, config.data.sentence_tokens),
        known_items=(places != _NEW) & package.layout.known_items[places],
        user_column=False,
    )
    model = MixRec(
        package.model.backbone,
        config.model,
        package.architecture,
        num_users=0,
        num_items=len(catalogue),
        training=config.training,
    )
    extension = replace(package, model=model, layout=layout, catalogue=catalogue, data_fingerprint=data.fingerprint)
    model.load_state_dict(_rows_carried_over(package, extension, places))
    model.to(package.model.backbone.device).eval()
    return extension


def start_of(package: Package, data: SequenceData, file: Path) -> Start:
    """Begin a training on `data` with `extended` weights, kept in `file`; users begin anew.

    Written once: threads may round them in another way, and a training goes by their content.
    """
    if not file.exists():
        checkpoint.write(file, extended(package, data).model.state_dict(), {})
    return Start(file, np.empty(0, dtype=np.int64))


@torch.inference_mode()
def _rows_carried_over(package: Package, extension: Package, places: NDArray[np.int64]) -> dict[str, Tensor]:
    """The weights of `package` over the catalogue of `extension`.

    Args:
        places: [I] of each item of the new catalogue the index in the old one, or `_NEW`.
    """
    weights = dict(package.model.state_dict())
    weights |= {name: weights[name][:0] for name in tables_of_users(package.model)}
    tables = tables_of_items(package.model)
    grown = {name: weights[name][torch.from_numpy(places)] for name in tables}
    new = np.flatnonzero(places == _NEW)
    for chosen in np.split(new, range(_ITEMS_AT_ONCE, len(new), _ITEMS_AT_ONCE)) if len(new) else []:
        could_be = _identified(package, extension, chosen)
        for name in tables:
            grown[name][torch.from_numpy(chosen)] = could_be.to(weights[name]) @ weights[name]
    return weights | grown


def _identified(package: Package, extension: Package, items: NDArray[np.int64]) -> Tensor:
    """[N, I] p(i | text) of `items`, N of the new catalogue, over the old one."""
    if not package.config.training.lambda_align:  # no loss told it apart from any other
        return torch.full((len(items), len(package.catalogue)), 1 / len(package.catalogue))
    states = align_states(package.model, extension.layout, items.tolist())
    return package.model.item_logits(states).float().softmax(dim=-1)
