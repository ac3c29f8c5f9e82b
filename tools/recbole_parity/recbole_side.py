"""One training by RecBole, run in its own environment: `python -I recbole_side.py TASK.json`.

Knows nothing of the project. Checks that RecBole's split is the one that was asked for, trains, and writes for each
user and held-out item how many items score higher and how many score the same: RecBole's own metrics have a cut-off
and break ties as it happens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed

REPORT_EVERY = 10
"""Epochs"""


def main(task_file: str) -> None:
    task = json.loads(Path(task_file).read_text("utf-8"))
    sequences = json.loads(Path(task["sequences"]).read_text("utf-8"))
    config = Config(model=task["model"], dataset=task["data_set"], config_dict=task["settings"])
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    check_split([loader.dataset for loader in loaders], sequences, config["MAX_ITEM_LIST_LENGTH"])
    if dataset.item_num != task["items"] + 1:
        sys.exit(f"RecBole ranks {dataset.item_num - 1} items, not {task['items']}")
    train, validation, test = loaders
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)

    def report(epoch: int, score: float) -> None:
        if (epoch + 1) % REPORT_EVERY == 0:
            print(f"{task['label']}: epoch {epoch + 1}, validation MRR {score:.4f}", flush=True)

    trainer.fit(train, validation, verbose=False, callback_fn=report)
    # Its checkpoint holds its configuration, an object, which torch refuses to load unless told to trust the file.
    best = torch.load(trainer.saved_model_file, weights_only=False)
    model.load_state_dict(best["state_dict"])
    model.load_other_parameter(best.get("other_parameter"))
    found = {"validation": ranks(model, validation), "test": ranks(model, test), "best_epoch": best["epoch"] + 1}
    Path(task["output"]).write_text(json.dumps(found), "utf-8")


def check_split(parts: list[Any], sequences: list[list[int]], history: int) -> None:
    """End the process where the rows of training, validation and test are not those of our split of `sequences`."""
    targets = (slice(1, -2), slice(-2, -1), slice(-1, None))
    for name, part, places in zip(("training", "validation", "test"), parts, targets, strict=True):
        expected = sorted(
            (user, sequence[max(0, place - history) : place], sequence[place])
            for user, sequence in enumerate(sequences)
            for place in range(len(sequence))[places]
        )
        if sorted(rows_of(part)) != expected:
            sys.exit(f"RecBole's {name} rows are not those of our split")


def rows_of(part: Any) -> list[tuple[int, list[int], int]]:
    """User, history and target of each row, under our indices."""
    users, items = (
        [int(token[1:]) if token[0] in "ui" else -1 for token in part.field2id_token[field]]
        for field in ("user_id", "item_id")
    )
    rows = part.inter_feat
    columns = (rows[name].tolist() for name in ("user_id", "item_id_list", "item_length", "item_id"))
    return [
        (users[user], [items[item] for item in before[:length]], items[item])
        for user, before, length, item in zip(*columns, strict=True)
    ]


@torch.no_grad()
def ranks(model: Any, loader: Any) -> list[tuple[int, int, int]]:
    """Our index of each user, items that score above the target, and items level with it, itself included."""
    model.eval()
    tokens = loader.dataset.field2id_token["user_id"]
    found = []
    for rows, *_ in loader:
        scores = model.full_sort_predict(rows)[:, 1:]  # without the padding
        if not torch.isfinite(scores).all():
            sys.exit("RecBole's scores are not finite")
        at_target = scores.gather(1, rows["item_id"].unsqueeze(1) - 1)
        above, level = (scores > at_target).sum(1), (scores == at_target).sum(1)
        users = [int(tokens[user][1:]) for user in rows["user_id"]]
        found += list(zip(users, above.tolist(), level.tolist(), strict=True))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
