"""The shop of docs/recommending.md and docs/updating.md, which has never existed.

    python tools/made_up_shop.py FOLDER
    python tools/made_up_shop.py FOLDER --later

writes `items.csv` and `events.csv`: 40 things and 400 users who mostly stay within one kind of them, and take what
stands next on the list half of the time. `--later` writes the shop of a while later: four new things, 60 new users, and
of the others every third has taken two things more.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

KINDS = {
    "camping": "Two-person dome tent, Down sleeping bag, Folding camping stove, Gas cartridge 230 g, Titanium mug, "
    "Head torch, Inflatable sleeping mat, Dry bag 20 litres, Trekking poles, Water filter bottle",
    "kitchen": "Cast iron skillet, Chef's knife 20 cm, Bamboo chopping board, Stainless saucepan, "
    "Silicone spatula set, Salad spinner, Kitchen scales, Pepper mill, Bread tin, Measuring jug",
    "garden": "Garden hose 25 m, Hand trowel, Pruning shears, Tomato seeds, Terracotta pot 30 cm, "
    "Potting soil 20 litres, Watering can, Plant labels, Gardening gloves, Raised bed kit",
    "bicycle": "Bicycle helmet, Floor pump, Inner tube 28 inch, Puncture repair kit, Chain oil, Rear light, "
    "Front light, Cycling gloves, Bottle cage, Combination lock",
}
NEW = {"camping": "Camping lantern", "kitchen": "Kitchen apron", "garden": "Lawn rake", "bicycle": "Bicycle bell"}
USERS, NEW_USERS, RETURNS = 400, 60, 3
STRAYS, NEXT = 0.15, 0.5
"""Chances that a user turns to another kind, and that what follows is the next thing on the list"""


class Shop:
    """Things in the order of the list, and who took what, oldest first."""

    def __init__(self) -> None:
        self.draw = random.Random(7)
        self.things: dict[str, list[str]] = {}
        """Of each kind, by id"""
        self.titles: dict[str, str] = {}
        self.taken: list[list[str]] = []
        for kind, titles in KINDS.items():
            self.stock(kind, titles.split(", "))
        self.taken += [self.visit([], self.draw.randint(5, 9)) for _ in range(USERS)]

    def stock(self, kind: str, titles: Sequence[str]) -> None:
        for title in titles:
            thing = f"p{len(self.titles):02d}"
            self.titles[thing] = title
            self.things.setdefault(kind, []).append(thing)

    def visit(self, before: list[str], count: int) -> list[str]:
        """What a user has taken after `count` things more."""
        taken, kinds = list(before), list(self.things)
        of_last = next((kind for kind in kinds if taken and taken[-1] in self.things[kind]), None)
        kind = of_last or self.draw.choice(kinds)
        for _ in range(count):
            if self.draw.random() < STRAYS:
                kind = self.draw.choice(kinds)
            left = [thing for thing in self.things[kind] if thing not in taken]
            if left:
                following = self.following(taken[-1]) if taken else None
                taken.append(following if following in left and self.draw.random() < NEXT else self.draw.choice(left))
        return taken

    def following(self, thing: str) -> str | None:
        things = next(things for things in self.things.values() if thing in things)
        return dict(pairwise(things)).get(thing)

    def grow(self) -> None:
        for kind, title in NEW.items():
            self.stock(kind, [title])
        self.taken = [self.visit(row, 0 if user % RETURNS else 2) for user, row in enumerate(self.taken)]
        self.taken += [self.visit([], self.draw.randint(5, 9)) for _ in range(NEW_USERS)]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "title"])
            rows.writerows(sorted(self.titles.items()))
        with (folder / "events.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["user", "item", "timestamp"])
            for user, taken in enumerate(self.taken):
                rows.writerows([f"u{user}", thing, 1_700_000_000 + 1000 * step] for step, thing in enumerate(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--later", action="store_true")
    given = parser.parse_args()
    shop = Shop()
    if given.later:
        shop.grow()
    shop.write(given.folder)


if __name__ == "__main__":
    main()
