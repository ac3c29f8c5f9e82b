"""How fast users are ranked: by a model, from given scores, and one pass for two splits against one pass each.

    python benchmarks/evaluation_speed.py --data scientific-small

`--data` names prepared data (`mixrec-automl data prepare --name ...`). It prints users a second, each as the median and
the range of several runs that take turns in one process with 2 threads, and the median and range of their ratios:

1.  the evaluation of a model (4 layers of the default backbone, history 50, untrained) against a plain loop: one user
    after another, one row each, ranked by sorting;
2.  ranking alone, with and without seen items, from a given score matrix, against a loop over users with `torch.sort`;
3.  validation and test, with seen items and without, in one pass against four evaluations.

A model ranks `--users` users, drawn once. This takes about 3 minutes on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixrec_automl import paths
from search_spaces.architecture import Architecture, Placement
from trainers.config import BackboneConfig, DataConfig, FinetuneConfig
from trainers.data.batches import Layout
from trainers.data.histories import history_and_target
from trainers.data.sequence_data import SequenceData, Split
from trainers.evaluate import evaluate, score_histories, window
from trainers.model.mixrec import MixRec
from trainers.ranks import Setting, UserRanks, evaluate_scores
from trainers.task import build_model, load_task

SEED, THREADS, HISTORY = 0, 2, 50
TEST = (Setting("test"), Setting("test", exclude_seen=True))
ALL = (Setting("validation"), Setting("validation", exclude_seen=True), *TEST)
RANKED_USERS = 2000


def place_by_sorting(data: SequenceData, user: int, setting: Setting, scores: Tensor) -> int:
    """Place of the user's target, from 1, in the sorted catalogue; scores [I]."""
    history, target = history_and_target(data, user, setting.split)
    if setting.exclude_seen:
        scores = scores.clone()
        scores[[item for item in set(history.tolist()) if item != target]] = -torch.inf
    return int((torch.sort(scores, descending=True).indices == target).nonzero().item()) + 1


def loop_over_users(model: MixRec, layout: Layout, data: SequenceData) -> list[list[int]]:
    """[U][2] places of every user's test item, without batches."""
    places = []
    for user in range(data.num_users):
        row = window(model, layout, history_and_target(data, user, "test")[0], HISTORY)
        scores = score_histories(model, layout, [row], [user])[0]
        places.append([place_by_sorting(data, user, setting, scores) for setting in TEST])
    return places


def loop_over_scores(data: SequenceData, table: Tensor) -> list[list[int]]:
    """[U][2] places of every user's test item, one user after another; table [U, I]."""
    return [[place_by_sorting(data, user, setting, table[user]) for setting in TEST] for user in range(data.num_users)]


def in_turns(steps: Sequence[Callable[[], object]], runs: int) -> list[list[float]]:
    """Seconds of each step in each run."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(runs):
        for step, taken in zip(steps, seconds, strict=True):
            started = time.perf_counter()
            step()
            taken.append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f} to {max(values):,.{digits}f}]"


def report(title: str, names: tuple[str, str], users: int, steps: Sequence[Callable[[], object]], runs: int) -> None:
    """Compare two ways to rank `users` users: one line each, and one for how many times faster the first is."""
    seconds = in_turns(steps, runs)
    print(f"{title}: {users:,} users, {runs} runs")
    for name, taken in zip(names, seconds, strict=True):
        print(f"  {name:<34}{spread([users / one for one in taken], 1)} users a second")
    print(f"  {'times faster':<34}{spread([slow / fast for fast, slow in zip(*seconds, strict=True)], 2)}")


def check(found: Sequence[UserRanks], places: Sequence[Sequence[int]]) -> None:
    """Both ways, warmed up by this, must find the same: sorting puts a target at some place among its ties.

    Raises:
        AssertionError: they do not, by more than float32 allows when rows run in other batches.
    """
    for table, expected in zip(found, zip(*places, strict=True), strict=True):
        first = table.greater + 1
        apart = (np.array(expected) < first) | (np.array(expected) >= first + table.ties)
        assert apart.mean() < 0.05, f"{apart.sum()} of {len(apart)} users differ"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the ranking of users.")
    parser.add_argument("--data", default="scientific-small", help="name of prepared data")
    parser.add_argument("--users", type=int, default=48, help="users that the model ranks")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    config = FinetuneConfig(data=DataConfig(name=asked.data, history=HISTORY), backbone=BackboneConfig(layers=4))
    task = load_task(config, paths.data_folder(asked.data), paths.backbones_folder())
    model = build_model(config, Architecture.uniform(Placement.SERIAL, 4), task, SEED).eval()
    layout, whole = task.layout(config.model), task.data
    rng = np.random.default_rng(SEED)
    few = whole.select_users(np.sort(rng.permutation(whole.num_users)[: asked.users]))
    print(f"{asked.data}: {whole.num_users:,} users, {whole.num_items:,} items, {THREADS} threads")

    def run(settings: Sequence[Setting]) -> tuple[UserRanks, ...]:
        return evaluate(model, layout, few, settings, HISTORY)

    check(run(TEST), loop_over_users(model, layout, few))
    report(
        "1. a model, test items with and without seen items",
        ("one evaluation", "a loop over users"),
        few.num_users,
        (lambda: run(TEST), lambda: loop_over_users(model, layout, few)),
        asked.runs,
    )

    many = whole.select_users(rng.integers(whole.num_users, size=RANKED_USERS))
    table = torch.randn(RANKED_USERS, whole.num_items)

    def given(users: NDArray[np.int64], splits: tuple[Split, ...]) -> list[Tensor]:
        return [table[int(users[0]) : int(users[-1]) + 1]] * len(splits)

    check(evaluate_scores(many, TEST, given), loop_over_scores(many, table))
    report(
        "2. from given scores, with and without seen items",
        ("evaluate_scores", "a loop over users with torch.sort"),
        RANKED_USERS,
        (lambda: evaluate_scores(many, TEST, given), lambda: loop_over_scores(many, table)),
        asked.runs,
    )
    report(
        "3. a model, two splits with and without seen items",
        ("one pass", "four evaluations"),
        few.num_users,
        (lambda: run(ALL), lambda: [run([setting]) for setting in ALL]),
        asked.runs,
    )


if __name__ == "__main__":
    main()
