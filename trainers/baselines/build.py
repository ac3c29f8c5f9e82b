"""Makes the untrained model that a baseline's settings describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.baselines.baseline import Baseline
from trainers.baselines.bert4rec import BERT4Rec
from trainers.baselines.collaborative import CollaborativeBaseline
from trainers.baselines.config import (
    BaselineConfig,
    Bert4RecConfig,
    FdsaConfig,
    Gru4RecConfig,
    MfConfig,
    NcfConfig,
    P5Config,
    RecFormerConfig,
    SasRecConfig,
    TransformerConfig,
    UniSRecConfig,
)
from trainers.baselines.fdsa import FDSA
from trainers.baselines.gru4rec import GRU4Rec
from trainers.baselines.item_features import word_features
from trainers.baselines.p5_weights import build_p5
from trainers.baselines.recformer import RecFormer
from trainers.baselines.sasrec import SampledLoss, SASRec
from trainers.baselines.text_body import TextBodies, blank_text_body
from trainers.baselines.transformer import TransformerSize
from trainers.baselines.unisrec import UniSRec
from trainers.baselines.unisrec_weights import start_from
from trainers.data.sequence_data import Catalogue
from trainers.model.collaborative import MF, NCF
from trainers.model.sentence_encoder import Reading

TextVectors = Callable[[str, Reading], NDArray[np.float32]]
"""Name of a text encoder, and which of its states are read -> [I, t] vectors of all item sentences"""


def build_baseline(
    config: BaselineConfig,
    catalogue: Catalogue,
    num_users: int,
    texts: TextVectors,
    bodies: TextBodies,
    description: Mapping[str, Any] | None = None,
) -> Baseline[Any]:
    """The untrained model, its random weights drawn from torch's global generator.

    Args:
        num_users: that MF and NCF have a vector for; the others know none.
        texts: asked by models that read text vectors.
        bodies: asked by models that read the texts themselves and start.
        description: `Baseline.description` of a model whose weights are at hand; published ones are not read then.

    Raises:
        TypeError: settings of no model.
        UserError: as `texts` and `bodies`; published weights that the settings name cannot be had.
    """
    items = len(catalogue)
    match config:
        case Gru4RecConfig():
            return GRU4Rec(
                items,
                config.history,
                width=config.width,
                hidden=config.hidden,
                layers=config.layers,
                dropout=config.dropout,
            )
        case SasRecConfig():
            sampled = SampledLoss(min(config.sampled_items, items), config.gbce_calibration)
            return SASRec(items, config.history, _size(config), sampled if config.item_loss == "gbce" else None)
        case Bert4RecConfig():
            shares = {"mask_share": config.mask_share, "last_share": config.last_share}
            return BERT4Rec(items, config.history, _size(config), **shares)
        case FdsaConfig():
            features, count = word_features(catalogue, most=config.most_features, least_items=config.least_items)
            return FDSA(items, config.history, _size(config), features, count)
        case UniSRecConfig():
            model = UniSRec(
                config.history,
                replace(_size(config), inner=config.inner),
                torch.tensor(texts(config.text_encoder, config.text_reading)),
                experts=config.experts,
                adaptor_dropout=config.adaptor_dropout,
                temperature=config.temperature,
                transductive=config.transductive,
            )
            if config.weights is not None and description is None:
                model.started_from = start_from(model, config.weights)
            model.started_from += f", texts by {config.text_encoder}"
            return model
        case RecFormerConfig():
            body = bodies(config) if description is None else blank_text_body(config, items, description)
            return RecFormer(
                config.history,
                body,
                temperature=config.temperature,
                stage_patience=config.stage_patience,
            )
        case P5Config():
            return build_p5(config, items, description)
        case MfConfig():
            return CollaborativeBaseline(MF(num_users, items, config.dim), config.negatives)
        case NcfConfig():
            return CollaborativeBaseline(NCF(num_users, items, config.dim), config.negatives)
    raise TypeError(f"{type(config).__name__} describes no model")


def _size(config: TransformerConfig) -> TransformerSize:
    return TransformerSize(config.width, config.layers, config.heads, config.dropout, 4 * config.width)
