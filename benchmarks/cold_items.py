"""How well items are ranked by their text alone, as `mixrec-automl recommend --new` does: test items of a data set.

    mixrec-automl promote NAME
    python benchmarks/cold_items.py mixrec-ml-100k

The package of the model ranks each user's test item among all items of the catalogue (MRR):

*   `catalogue`: by W_item, as items that it knows;
*   `text`: by their sentences alone, each worth what the model takes it to be of (`trainers/new_items.py`);
*   `unrecognised`: the same where a text may be of any item but its own: what is left for an item that is really new,
    although this one's interactions were trained on;
*   `cosine`: by the cosine of `[SEQ]` and `[ALIGN]` states, which the contrastive loss trains;
*   `random`: the expectation.

It takes two passes over the users and one over the items: a few minutes of a core for MovieLens 100K.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from mixrec_automl import paths
from mixrec_automl.serving.loading import load_now
from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import open_prepared
from trainers.device import move
from trainers.evaluate import UNKNOWN_USER, passes
from trainers.new_items import as_mixtures
from trainers.package import Package
from trainers.similar import align_states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="as `mixrec-automl recommend` takes it; of MixRec")
    model = parser.parse_args().model
    package = load_now(model).package
    assert isinstance(package, Package)
    data = open_prepared(paths.data_folder(package.config.data.name))
    table = Table("ranked by", "MRR")
    for name, value in measured(package, data).items():
        table.add_row(name, f"{value:.4f}")
    console = Console()
    console.print(f"{model}: test items of {data.num_users:,} users among {data.num_items:,}", highlight=False)
    console.print(table)


@torch.inference_mode()
def measured(package: Package, data: SequenceData) -> dict[str, float]:
    sequences = [data.sequence(user) for user in range(data.num_users)]
    histories = package.windows(package.layout, [items[:-1] for items in sequences])
    targets = torch.tensor([int(items[-1]) for items in sequences])
    states = torch.empty(len(histories), package.model.backbone.width)
    for chosen, rows in passes(package.layout, histories, [UNKNOWN_USER] * len(histories)):
        states[torch.from_numpy(chosen)] = package.model.encode(move(rows, package.model.backbone.device)).float().cpu()
    alone = replace(package.layout, align_column=False)  # a new item has no vector of M_cf
    items = align_states(package.model, alone, range(len(package.catalogue))).cpu()
    model = package.model.cpu()
    after, of_texts = model.item_logits(states), model.item_logits(items)
    own = torch.eye(len(items), dtype=torch.bool)
    return {
        "catalogue": mrr(after, targets),
        "text": mrr(as_mixtures(after, of_texts), targets),
        "unrecognised": mrr(as_mixtures(after, of_texts.masked_fill(own, -torch.inf)), targets),
        "cosine": mrr(normalize(states, dim=-1) @ normalize(items, dim=-1).T, targets),
        "random": sum(1 / rank for rank in range(1, len(items) + 1)) / len(items),
    }


def mrr(scores: Tensor, targets: Tensor) -> float:
    """Items that tie with the right one count half."""
    own = scores.gather(1, targets[:, None])
    ranks = 1 + (scores > own).sum(dim=1) + ((scores == own).sum(dim=1) - 1) / 2
    return float((1 / ranks).mean())


if __name__ == "__main__":
    main()
