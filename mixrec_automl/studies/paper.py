"""Figures that the paper prints, to stand beside ours (Table 2). Its Fig. 5 to 12 are plots without numbers."""

from __future__ import annotations

from collections.abc import Mapping

from mixrec_automl.search_config import SearchConfig

BACKBONE, EPOCHS = "facebook/opt-125m", 40

TABLE_2: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "arts": {
        "MixRec": {"ndcg_at_10": 0.1400, "recall_at_10": 0.1767, "mrr": 0.1340},
        "LLMRec": {"ndcg_at_10": 0.0792, "recall_at_10": 0.1054, "mrr": 0.0744},
    },
    "scientific": {
        "MixRec": {"ndcg_at_10": 0.1162, "recall_at_10": 0.1529, "mrr": 0.1105},
        "LLMRec": {"ndcg_at_10": 0.0520, "recall_at_10": 0.0745, "mrr": 0.0495},
    },
    "instruments": {
        "MixRec": {"ndcg_at_10": 0.0966, "recall_at_10": 0.1283, "mrr": 0.0927},
        "LLMRec": {"ndcg_at_10": 0.0486, "recall_at_10": 0.0689, "mrr": 0.0470},
    },
    "pantry": {
        "MixRec": {"ndcg_at_10": 0.0689, "recall_at_10": 0.1036, "mrr": 0.0638},
        "LLMRec": {"ndcg_at_10": 0.0251, "recall_at_10": 0.0392, "mrr": 0.0251},
    },
    "games": {
        "MixRec": {"ndcg_at_10": 0.0895, "recall_at_10": 0.1358, "mrr": 0.0839},
        "LLMRec": {"ndcg_at_10": 0.0339, "recall_at_10": 0.0534, "mrr": 0.0325},
    },
}
"""Data set -> variant of our studies -> test metric."""

TABLE_1: Mapping[str, Mapping[str, int]] = {
    "arts": {"users": 56083, "items": 22685, "training interactions": 364356},
    "scientific": {"users": 10973, "items": 5193, "training interactions": 54183},
    "instruments": {"users": 27518, "items": 10535, "training interactions": 171108},
    "pantry": {"users": 14178, "items": 4961, "training interactions": 102661},
    "games": {"users": 55126, "items": 17277, "training interactions": 356954},
}
"""Data set -> counts after preprocessing. The paper's column of interactions counts the training part."""


def differences_to_paper(config: SearchConfig) -> list[str]:
    """What of backbone and budget is not the paper's, in words."""
    layers = f", first {config.backbone.layers} layers" if config.backbone.layers else ""
    told = []
    if config.backbone.name != BACKBONE or config.backbone.layers:
        told.append(f"backbone {config.backbone.name}{layers} (paper: OPT-125M)")
    if config.training.epochs != EPOCHS:
        told.append(f"{config.training.epochs} epochs (paper: {EPOCHS})")
    return told
