"""A model brought up to date (`mixrec-automl update`) against one trained anew on the same data.

    python benchmarks/updating.py --items items.jsonl.gz --sequences sequences.jsonl.gz --seeds 0 1 2

The files are those of `data prepare --sequences`. They are the shop of today. The shop of yesterday is made from them,
by the seed: a twentieth of the items did not exist, a tenth of the users had not come, and a third of the others had
not yet taken the last fifth of their items. One design, the all-serial one of the preset `scientific-small`, is trained
on yesterday's shop, and:

*   `as it is`: stays as it is, and ranks new items by what their texts could be of (`trainers/extension.py`);
*   `updated`: is trained on with today's data for some of the epochs;
*   `anew`: is trained from fresh weights on today's data, for all epochs.

All rank the test items of today's users, for whom nobody was trained on a test item. Epochs that were trained are not
trained again. It takes ten minutes of a core a seed for 2,900 users.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mixrec_automl import paths
from mixrec_automl.config import load_config
from search_spaces.architecture import Architecture, Placement
from trainers.config import FinetuneConfig
from trainers.data.prepare import prepare
from trainers.data.sequence_data import SequenceData
from trainers.data.sources import Source
from trainers.data.store_format import open_prepared
from trainers.epochs import BEST
from trainers.evaluate import evaluate
from trainers.extension import extended, start_of
from trainers.finetune import finetune
from trainers.package import Package, read_package, write_package
from trainers.ranks import Setting, UserRanks
from trainers.start import Start
from trainers.statistics import paired_difference
from trainers.task import load_task

NEW_ITEMS, NEW_USERS = 0.05, 0.1
BACK_AGAIN, NEW_EVENTS = 1 / 3, 0.2
"""Share of the users of yesterday that have come again, and of their items what they have taken since"""
LEAST_EVENTS = 4
"""Of a user, for the filters"""
DESIGN = Architecture.uniform(Placement.SERIAL, 1)
ANEW = "anew"


@dataclass(frozen=True)
class Result:
    ranks: UserRanks
    seconds: float
    """Of training"""


@dataclass(frozen=True)
class Shop:
    """Today's and yesterday's, of one seed."""

    folder: Path
    today: SequenceData
    yesterday: SequenceData

    @classmethod
    def of(cls, items: Path, sequences: Path, seed: int, config: FinetuneConfig) -> Shop:
        folder = paths.home() / "updating" / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        today = [row["items"] for row in rows_of(sequences)]
        sources = {"today": today, "yesterday": as_of_yesterday(today, seed)}
        for name, taken in sources.items():
            if not (folder / name).exists():
                file = folder / f"{name}.jsonl"
                rows = [json.dumps({"user": user, "items": row}) for user, row in enumerate(taken) if row]
                file.write_text("\n".join(rows), "utf-8")
                prepare(name, Source(items=items, sequences=file), config.data.filters, folder / name)
        return cls(folder, open_prepared(folder / "today"), open_prepared(folder / "yesterday"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def as_of_yesterday(today: Sequence[Sequence[Any]], seed: int) -> list[list[Any]]:
    """What each user had taken; nothing for one who had not come, or not often enough to be counted."""
    draws = np.random.default_rng(seed)
    items = sorted({item for row in today for item in row})
    missing = set(draws.choice(items, round(NEW_ITEMS * len(items)), replace=False).tolist())
    has_come = draws.random(len(today)) >= NEW_USERS
    is_back = draws.random(len(today)) < BACK_AGAIN
    taken = []
    for row, came, back in zip(today, has_come, is_back, strict=True):
        before = row[: min(len(row) - 1, round((1 - NEW_EVENTS) * len(row)))] if back else row
        before = [item for item in before if item not in missing]
        taken.append(before if came and len(before) >= LEAST_EVENTS else [])
    return taken


class Bench:
    def __init__(self, shop: Shop, config: FinetuneConfig, seed: int, console: Console) -> None:
        self.shop, self.config, self.seed, self.console = shop, config, seed, console
        self.backbones = paths.backbones_folder()
        self.setting = Setting("test", exclude_seen=False)

    def trained(self, name: str, day: str, epochs: int, start: Start | None = None) -> tuple[Package, float]:
        """From fresh weights, or from `start`; the seconds are those of the epochs."""
        folder = self.shop.folder / name
        config = replace(self.config, training=replace(self.config.training, epochs=epochs))
        task = load_task(config, self.shop.folder / day, self.backbones)
        seconds = folder / "seconds"
        if not (folder / "package").exists():
            begun = time.process_time()
            finetune(config, DESIGN, task, seed=self.seed, folder=folder, on_epoch=self._told(name), start=start)
            seconds.write_text(str(time.process_time() - begun), "utf-8")
            write_package(folder / "package", config, DESIGN, task, folder / BEST, self.backbones)
        return read_package(folder / "package"), float(seconds.read_text("utf-8"))

    def _told(self, name: str) -> Any:
        def on_epoch(report: Any) -> bool:
            told = f"seed {self.seed}  {name}  epoch {report.epoch}/{report.epochs}  MRR {report.validation.mrr:.4f}"
            self.console.print(f"{told}  {report.seconds:.0f} s", highlight=False)
            return True

        return on_epoch

    def ranks(self, package: Package) -> UserRanks:
        (ranks,) = evaluate(package.model, package.layout, self.shop.today, [self.setting], self.config.data.history)
        return ranks

    def results(self, epochs: Sequence[int]) -> dict[str, Result]:
        total = self.config.training.epochs
        champion, _ = self.trained("champion", "yesterday", total)
        found = {"as it is": Result(self.ranks(extended(champion, self.shop.today)), 0.0)}
        start = start_of(champion, self.shop.today, self.shop.folder / "start.safetensors")
        for count in epochs:
            package, seconds = self.trained(f"updated-{count}", "today", count, start)
            found[f"updated, {count} of {total} epochs"] = Result(self.ranks(package), seconds)
        package, seconds = self.trained(ANEW, "today", total)
        found[ANEW] = Result(self.ranks(package), seconds)
        return found


def slices(shop: Shop, ranks: UserRanks) -> dict[str, NDArray[np.bool_]]:
    known = set(shop.yesterday.catalogue.ids)
    came = set(shop.yesterday.user_ids)
    new_item = np.array([shop.today.catalogue.ids[target] not in known for target in ranks.target])
    new_user = np.array([user not in came for user in ranks.user])
    return {"all users": np.ones(len(ranks), dtype=np.bool_), "new users": new_user, "new items": new_item}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--sequences", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4], help="of the updates")
    given = parser.parse_args()
    console = Console(width=140)
    config = load_config("scientific-small").finetune
    of_seeds, shops = [], []
    for seed in given.seeds:
        shop = Shop.of(given.items, given.sequences, seed, config)
        counts = f"{shop.yesterday.num_users:,} users and {shop.yesterday.num_items:,} items yesterday"
        console.print(
            f"seed {seed}: {counts}, {shop.today.num_users:,} and {shop.today.num_items:,} today", highlight=False
        )
        of_seeds.append(Bench(shop, config, seed, console).results(given.epochs))
        shops.append(shop)
    console.print(table_of(shops, of_seeds))


def table_of(shops: Sequence[Shop], of_seeds: Sequence[dict[str, Result]]) -> Table:
    """Means over the seeds; the interval is over the users of all seeds."""
    table = Table("model", title=f"test items of today, {len(shops)} seeds, seen items ranked")
    for heading in (
        "MRR, all users",
        "new users",
        "new test item",
        "minus anew, 95 % over users",
        "CPU time, share of anew",
    ):
        table.add_column(heading, justify="right")
    for name in of_seeds[0]:
        cells = [name]
        for part in ("all users", "new users", "new items"):
            means = [
                (1 / results[name].ranks.rank)[slices(shop, results[name].ranks)[part]].mean()
                for shop, results in zip(shops, of_seeds, strict=True)
            ]
            cells.append(f"{np.mean(means):.4f}")
        ours, anew = (np.concatenate([1 / results[one].ranks.rank for results in of_seeds]) for one in (name, ANEW))
        found = paired_difference(ours, anew, seed=0)
        cells.append("" if name == ANEW else f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
        share = np.mean([results[name].seconds / results[ANEW].seconds for results in of_seeds])
        cells.append(f"{share:.2f}")
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    main()
