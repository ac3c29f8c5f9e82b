"""Makes the untrained model that a baseline's settings describe."""

from __future__ import annotations

from typing import Any

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
    SasRecConfig,
    TransformerConfig,
)
from trainers.baselines.fdsa import FDSA
from trainers.baselines.gru4rec import GRU4Rec
from trainers.baselines.item_features import word_features
from trainers.baselines.sasrec import SampledLoss, SASRec
from trainers.baselines.transformer import TransformerSize
from trainers.data.sequence_data import SequenceData
from trainers.model.collaborative import MF, NCF


def build_baseline(config: BaselineConfig, data: SequenceData) -> Baseline[Any]:
    """The model for the catalogue (and for MF and NCF the users) of `data`, with random weights.

    Raises:
        TypeError: settings of no model.
    """
    items = data.num_items
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
            features, count = word_features(data.catalogue, most=config.most_features, least_items=config.least_items)
            return FDSA(items, config.history, _size(config), features, count)
        case MfConfig():
            return CollaborativeBaseline(MF(data.num_users, items, config.dim), config.negatives)
        case NcfConfig():
            return CollaborativeBaseline(NCF(data.num_users, items, config.dim), config.negatives)
    raise TypeError(f"{type(config).__name__} describes no model")


def _size(config: TransformerConfig) -> TransformerSize:
    return TransformerSize(config.width, config.layers, config.heads, config.dropout)
