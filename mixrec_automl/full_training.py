"""One design trained on all users: the training itself, its package, and its test."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mixrec_automl import paths
from mixrec_automl.cluster.executor import (
    EpochEnded,
    Executor,
    ExecutorDied,
    SlotsWaiting,
    TrialCompleted,
    TrialFailed,
    TrialLost,
    TrialStopped,
)
from mixrec_automl.cluster.finetune_training import FinetuneTraining
from mixrec_automl.cluster.lasting_executor import LastingExecutor
from mixrec_automl.cluster.slot_executor import SlotExecutor
from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.cluster.watchdog import Watchdog
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.storage_trouble import StorageTrouble
from search_spaces.design import Design
from trainers.baselines.floors import floors
from trainers.data.sequence_data import SequenceData
from trainers.epochs import BEST
from trainers.errors import last_line
from trainers.evaluate import evaluate
from trainers.metrics import RankingMetrics, summarise
from trainers.package import Package, read_package, write_package
from trainers.ranks import TEST_SETTINGS, Setting, UserRanks
from trainers.start import Start
from trainers.statistics import PairedDifference, compare

POLL_SECONDS = 0.2
STOP_SECONDS = 3.0
"""How long a stopped training may take to end its epoch; after that the epoch is lost."""
BOOTSTRAP_SEED = 0
MOST_ATTEMPTS = 3
"""Of a training whose workers die; each goes on from the last checkpoint."""
FIRST_EPOCH_SECONDS = 48 * 3600.0
"""The first epoch on all users may take that long; later ones are measured by it."""


class FullTrainingError(RuntimeError):
    """The training raised, or its workers kept dying; the text holds the traceback, or how they died."""


@dataclass(frozen=True)
class FullTraining:
    """What is trained, and where. The folder is the same for the same training, so an interrupted one goes on."""

    what: str
    """In a word or two, as run names have it"""
    design: Design
    seed: int
    config: SearchConfig
    """With the design's settings, Data_BO widened to all users, and this training's epochs and workers"""
    folder: Path
    began_with: str
    """The weights, in words, for those who meet the model later"""
    fewest_workers: int | None = None
    """Processes with which it begins or goes on where machines are missing; None: it waits for all"""
    start: Start | None = None
    """Weights to begin with, instead of fresh ones"""
    task_number: int = 0
    """What its messages call the trial"""

    @property
    def package(self) -> Path:
        return self.folder / "package"


@dataclass(frozen=True)
class Evaluation:
    """Test results under one treatment of seen items."""

    exclude_seen: bool
    ranks: UserRanks
    metrics: RankingMetrics
    floors: Mapping[str, RankingMetrics]
    against_popularity: PairedDifference
    """In MRR, model minus popularity, on the same users"""


def key_of(deciding: Sequence[object]) -> str:
    """Names a folder by all that decides on a training; values of JSON."""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]


def train_fully(
    plan: FullTraining,
    folder: Path,
    on_epoch: Callable[[EpochEnded], None],
    on_trouble: Callable[[str | None], None],
    stop: StopRequest,
) -> bool:
    """Train on Ray, going on from the plan's checkpoint; False where `stop` ended it early.

    Args:
        on_trouble: told, in a line, of workers that died or are to be more, and of machines and storage that it waits
            for; None: no more.

    Raises:
        FullTrainingError: the training raised.
    """
    prepared = paths.data_folder(plan.config.data.name)
    training = FinetuneTraining(plan.config, prepared, paths.backbones_folder(), plan.start)
    task = TrialTask(plan.task_number, 1, plan.design, plan.seed, plan.folder)
    try:
        make = partial(SlotExecutor, training, plan.config.cluster, folder, fewest_workers=plan.fewest_workers)
        # The search's own limit for a hang is no measure here: an epoch on all users takes longer.
        with closing(LastingExecutor(make, Watchdog(None, first=FIRST_EPOCH_SECONDS))) as executor:
            return _follow(executor, task, on_epoch, on_trouble, stop)
    except ExecutorDied as died:
        raise FullTrainingError(str(died)) from died


def _follow(
    executor: Executor,
    task: TrialTask,
    on_epoch: Callable[[EpochEnded], None],
    on_trouble: Callable[[str | None], None],
    stop: StopRequest,
) -> bool:
    storage, losses, is_running = StorageTrouble(on_trouble), 0, False
    stopped_at: float | None = None
    while True:
        if not is_running and not storage.must_wait and stopped_at is None:
            executor.submit(task)
            is_running = True
        event = executor.next_event(POLL_SECONDS)
        if isinstance(event, EpochEnded):
            storage.worked(event.number)
            on_epoch(event)
        elif isinstance(event, SlotsWaiting):
            on_trouble(event.why)
        elif isinstance(event, TrialFailed):
            raise FullTrainingError(event.error)
        elif isinstance(event, TrialLost):
            if event.is_storage:
                storage.failed(event.number, last_line(event.reason))
            elif event.has_begun:
                losses += 1
                on_trouble(f"goes on after its last whole epoch: {last_line(event.reason)}")
            if storage.reason_to_give_up or losses == MOST_ATTEMPTS:
                raise FullTrainingError(storage.reason_to_give_up or event.reason)
            task, is_running = replace(task, attempt=task.attempt + 1), False
        elif isinstance(event, TrialStopped) and stopped_at is None:
            on_trouble("there is room for more processes: it goes on with them")
            task, is_running = replace(task, attempt=task.attempt + 1), False
        elif isinstance(event, TrialCompleted | TrialStopped):
            return isinstance(event, TrialCompleted)
        if stop.is_set():
            if stopped_at is None:
                stopped_at = time.monotonic()
                executor.stop()
            elif time.monotonic() - stopped_at > STOP_SECONDS:
                return False


def pack(plan: FullTraining) -> Package:
    """What was trained as a package, written once, and loaded from what was written."""
    if not plan.package.exists():
        training = FinetuneTraining(plan.config, paths.data_folder(plan.config.data.name), paths.backbones_folder())
        write_package(
            plan.package,
            plan.config.finetune,
            plan.design.architecture,
            training.load(),
            plan.folder / BEST,
            paths.backbones_folder(),
        )
    return read_package(plan.package)


def rank_users(package: Package, data: SequenceData, settings: Sequence[Setting]) -> tuple[UserRanks, ...]:
    """Ranks of every user of `data`, the data that the package was trained on: one table for each of `settings`."""
    return evaluate(package.model, package.layout, data, settings, package.config.data.history)


def evaluate_package(package: Package, data: SequenceData) -> tuple[Evaluation, Evaluation]:
    """Test metrics of every user, with seen items in the ranking and without, beside the floors."""
    all_floors = floors(data, "test")

    def beside_floors(ranks: UserRanks) -> Evaluation:
        below = {floor.name: floor.ranks for floor in all_floors if floor.exclude_seen is ranks.exclude_seen}
        return Evaluation(
            ranks.exclude_seen,
            ranks,
            summarise(ranks),
            {name: summarise(floor) for name, floor in below.items()},
            compare(ranks, below["popularity"], seed=BOOTSTRAP_SEED)["mrr"],
        )

    with_seen, without_seen = rank_users(package, data, TEST_SETTINGS)
    return beside_floors(with_seen), beside_floors(without_seen)


def flat_metrics(evaluations: tuple[Evaluation, ...]) -> dict[str, float]:
    """Flat names, as the database and MLflow hold them: `test_mrr`, `test_unseen_mrr`, `test_popularity_mrr`, ..."""
    flat: dict[str, float] = {}
    for evaluation in evaluations:
        prefix = evaluation.ranks.setting.prefix
        flat |= evaluation.metrics.named(evaluation.ranks.setting)
        for floor, metrics in evaluation.floors.items():
            flat[f"{prefix}_{floor.replace('-', '_')}_mrr"] = metrics.mrr
        difference = evaluation.against_popularity
        flat |= {
            f"{prefix}_mrr_minus_popularity": difference.mean,
            f"{prefix}_mrr_minus_popularity_low": difference.low,
            f"{prefix}_mrr_minus_popularity_high": difference.high,
        }
    return flat
