"""What RecBole is given: our users' sequences and item words as its atomic files, and our settings under its names.

Users, items and words are written as their indices, `u3`, `i7`, `w5`: RecBole numbers tokens anew, in another order.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from trainers.baselines.config import (
    Bert4RecConfig,
    FdsaConfig,
    Gru4RecConfig,
    SasRecConfig,
    SequentialConfig,
    TransformerConfig,
)
from trainers.baselines.item_features import word_features
from trainers.data.sequence_data import SequenceData

DATA_SET = "parity"
CLASSES = {Gru4RecConfig: "GRU4Rec", SasRecConfig: "SASRec", Bert4RecConfig: "BERT4Rec", FdsaConfig: "FDSA"}
"""RecBole's names of the models"""


def write_input(data: SequenceData, config: SequentialConfig, folder: Path) -> None:
    """RecBole's `parity/parity.inter` and `.item` below `folder`, and the sequences once more for the worker's checks.

    The whole catalogue is in the `.item` file, so that RecBole also ranks items that none of the users has. The time
    stamp of an interaction is its place in the user's sequence: our order, without ties.
    """
    (folder / DATA_SET).mkdir(parents=True, exist_ok=True)
    sequences = [data.sequence(user).tolist() for user in range(data.num_users)]
    rows = [
        f"u{user}\ti{item}\t{place}" for user, sequence in enumerate(sequences) for place, item in enumerate(sequence)
    ]
    _write(folder / DATA_SET / f"{DATA_SET}.inter", "user_id:token\titem_id:token\ttimestamp:float", rows)
    words = _words(data, config) if isinstance(config, FdsaConfig) else [""] * data.num_items
    items = [f"i{item}\t{of_item}" for item, of_item in enumerate(words)]
    _write(folder / DATA_SET / f"{DATA_SET}.item", "item_id:token\tword:token_seq", items)
    (folder / "sequences.json").write_text(json.dumps(sequences), "utf-8")


def recbole_settings(
    config: SequentialConfig, data: SequenceData, *, train_batch: int, seed: int, folder: Path
) -> dict[str, object]:
    """RecBole's configuration of the model of `config`: the same sizes, rates and end of the training.

    Its MRR has a cut-off, here the size of the catalogue, and is rounded before epochs are compared. It stops once
    more than `stopping_step` epochs were no better. All its rows are filled up to the longest allowed history, which
    is therefore no longer than the longest one there is.
    """
    longest = int((data.offsets[1:] - data.offsets[:-1]).max()) - 1
    columns = ["item_id", "word"] if isinstance(config, FdsaConfig) else ["item_id"]
    return {
        **_sizes(config),
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": min(config.history, longest),
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "train_batch_size": train_batch,
        "epochs": config.epochs,
        "stopping_step": config.patience - 1,
        "metrics": ["MRR"],
        "topk": [data.num_items],
        "valid_metric": f"MRR@{data.num_items}",
        "metric_decimal_place": 9,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": {"valid": "full", "test": "full"},
        },
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": columns},
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "checkpoints"),
        "seed": seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
    }


def _sizes(config: SequentialConfig) -> dict[str, object]:
    if isinstance(config, Gru4RecConfig):
        return {
            "embedding_size": config.width,
            "hidden_size": config.hidden,
            "num_layers": config.layers,
            "dropout_prob": config.dropout,
        }
    if not isinstance(config, TransformerConfig):
        raise TypeError(f"{type(config).__name__} describes no model of RecBole's")
    sizes: dict[str, object] = {
        "hidden_size": config.width,
        "inner_size": 4 * config.width,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "hidden_dropout_prob": config.dropout,
        "attn_dropout_prob": config.dropout,
    }
    if isinstance(config, Bert4RecConfig):
        return sizes | {"mask_ratio": config.mask_share, "ft_ratio": config.last_share}
    if isinstance(config, FdsaConfig):
        return sizes | {"selected_features": ["word"]}
    return sizes


def _words(data: SequenceData, config: FdsaConfig) -> list[str]:
    """The features of each item that our FDSA reads, in one string."""
    features, count = word_features(data.catalogue, most=config.most_features, least_items=config.least_items)
    return [_told(row, count) for row in features[: data.num_items]]


def _told(row: Tensor, filling: int) -> str:
    return " ".join(f"w{word}" for word in row.tolist() if word != filling)


def _write(path: Path, heading: str, rows: list[str]) -> None:
    path.write_text("\n".join([heading, *rows, ""]), "utf-8")
