"""The winner of a search, trained on all users with several training seeds, against popularity on the test items.

    python benchmarks/promoted_seeds.py NAME --seeds 0 1 2

Resumable: a seed that has been trained is not trained again. Prints the table of docs/results.md. The seeds say how
much of the difference is the luck of one training; the intervals, over users, how much is the luck of the users.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from mixrec_automl import paths
from mixrec_automl.cluster.ray_session import check_resources, ray_session
from mixrec_automl.config import from_dict
from mixrec_automl.epochs_bar import epochs_bar
from mixrec_automl.full_training import Evaluation, evaluate_package, pack, train_fully
from mixrec_automl.interruption import StopRequest
from mixrec_automl.promotion import plan_promotion
from mixrec_automl.store.records import best_trial
from mixrec_automl.store.repository import Repository
from trainers.data.store_format import open_prepared


def evaluate_seed(name: str, seed: int, console: Console) -> tuple[Evaluation, ...]:
    repository = Repository.open()
    search = repository.search(name)
    config = from_dict(search.config, f"search {name}")
    winner = best_trial(repository.trials(name))
    if winner is None:
        raise SystemExit(f"search {name} has no completed trial")
    data = open_prepared(paths.data_folder(config.data.name))
    plan = plan_promotion(search, config, replace(winner, seed=seed), data, None)
    if not plan.package.exists():
        console.print(f"seed {seed}: training {winner.architecture} on all users", highlight=False)
        with ray_session() as scratch, epochs_bar(console, plan.config.training.epochs) as show:
            check_resources(plan.config.cluster)
            train_fully(plan, (scratch or plan.folder) / "train", show, console.print, StopRequest())
    return evaluate_package(pack(plan), data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a search with a completed trial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    console = Console(width=140)
    found = {seed: evaluate_seed(arguments.name, seed, console) for seed in arguments.seeds}

    table = Table("seen items", "seed", title=f"winner of {arguments.name}, all users, test items")
    for heading in ("MRR", "popularity", "difference, 95 % over users", "NDCG@10", "Recall@10"):
        table.add_column(heading, justify="right")
    for position, seen in enumerate(("ranked", "left out")):
        for seed, evaluations in found.items():
            evaluation = evaluations[position]
            metrics, difference = evaluation.metrics, evaluation.against_popularity
            table.add_row(
                seen,
                str(seed),
                f"{metrics.mrr:.4f}",
                f"{evaluation.floors['popularity'].mrr:.4f}",
                f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]",
                f"{metrics.ndcg_at_10:.4f}",
                f"{metrics.recall_at_10:.4f}",
            )
        means = [evaluations[position].against_popularity.mean for evaluations in found.values()]
        spread = f" ± {np.std(means, ddof=1):.4f} between seeds" if len(means) > 1 else ""
        table.add_row(seen, "mean", "", "", f"{np.mean(means):+.4f}{spread}", "", "", end_section=True)
    console.print(table)


if __name__ == "__main__":
    main()
