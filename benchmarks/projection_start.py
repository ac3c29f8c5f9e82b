"""Where the item projection starts: why its input is standardised and its bias begins at popularity.

    python benchmarks/projection_start.py

Prints, for ML-100K and the preset's backbone before any training: the cosine of the final [SEQ] states to their mean,
the spread of the logits that is common to all positions (it ranks items alike for everybody, so it is noise) and the
spread between positions (it can tell users apart), and the loss on one batch. ln(items) is the loss of a flat guess.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cosine_similarity, cross_entropy

from mixrec_automl import paths
from mixrec_automl.config import load_config
from search_spaces.architecture import Architecture, Placement
from trainers.data.batches import collate
from trainers.data.prepare import open_or_prepare
from trainers.task import build_model, load_task

SEED = 0


def main() -> None:
    search = load_config(Path(__file__).parent.parent / "configs" / "ml-100k.yaml")
    config, folder = search.finetune, paths.data_folder(search.data.name)
    open_or_prepare(search.data.name, search.data.filters, folder, paths.downloads_folder())
    task = load_task(config, folder, paths.backbones_folder(), user_share=search.search.user_share)
    step = next(task.sampler(config, SEED).epoch(1))
    batch = collate(step, task.layout(config.model))
    table = Table("W_item reads", "W_item starts", "b_item starts", "design", title="before training")
    for heading in ("cosine to mean", "common spread", "spread between", "L_seq"):
        table.add_column(heading, justify="right")
    for reads in ("raw", "standardised"):
        for rows in ("random", "align"):
            for bias in ("zero", "popularity"):
                for placement in Placement:
                    starts = {"item_projection_input": reads, "item_projection_init": rows, "item_bias_init": bias}
                    varied = replace(config, model=replace(config.model, **starts))
                    design = Architecture.uniform(placement, len(task.backbone.layers))
                    model = build_model(varied, design, task, SEED)
                    with torch.inference_mode():
                        states = model.encode(batch.histories)
                        logits = model.item_logits(states)
                        free = logits - model.item_projection.bias
                        table.add_row(
                            reads,
                            rows,
                            bias,
                            f"all {placement.name.lower()}",
                            f"{cosine_similarity(states, states.mean(dim=0, keepdim=True)).mean():.4f}",
                            f"{free.mean(dim=0).std():.2f}",
                            f"{(free - free.mean(dim=0)).std():.2f}",
                            f"{cross_entropy(logits, batch.targets):.2f}",
                        )
    Console(width=140).print(table)
    print(f"ln(items) = {math.log(task.data.num_items):.2f}")


if __name__ == "__main__":
    main()
