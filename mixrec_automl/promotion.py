"""From the winner of a search to a registered model: train on all users, test once, register, pass the gate.

The gate (design, section 1): the alias `champion` moves only to a model that is better on the same users of the same
data, the paired 95 % lower bound of the difference in MRR being above zero; a first champion must beat popularity.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

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
from mixrec_automl.config import with_settings
from mixrec_automl.live import last_line
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import Search, Trial
from trainers.baselines.floors import floors
from trainers.data.sequence_data import SequenceData
from trainers.data.users import sample_users
from trainers.epochs import BEST
from trainers.errors import UserError
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


class PromotionError(RuntimeError):
    """The training of the winner raised, or its workers kept dying; the text holds the traceback, or how they died."""


@dataclass(frozen=True)
class PromotionPlan:
    """What is trained, and where. The folder is the same for the same plan, so an interrupted promotion goes on."""

    trial: Trial
    config: SearchConfig
    """The search's, with the trial's settings, Data_BO widened to all users, and the promotion's epochs and workers"""
    folder: Path
    fewest_workers: int | None = None
    """Processes with which it begins or goes on where machines are missing; None: it waits for all"""
    start: Start | None = None
    """The weights of the trial, where they are to begin with"""

    @property
    def package(self) -> Path:
        return self.folder / "package"

    @property
    def began_with(self) -> str:
        """In words, for those who meet the model later."""
        return "fresh weights" if self.start is None else f"the weights of trial {self.trial.number}"


@dataclass(frozen=True)
class Evaluation:
    """Test results under one treatment of seen items."""

    exclude_seen: bool
    ranks: UserRanks
    metrics: RankingMetrics
    floors: Mapping[str, RankingMetrics]
    against_popularity: PairedDifference
    """In MRR, model minus popularity, on the same users"""


def plan_promotion(
    search: Search,
    config: SearchConfig,
    trial: Trial,
    data: SequenceData,
    workers: int | None,
    *,
    from_trial: bool = False,
) -> PromotionPlan:
    """Everything that decides on the training of `trial` on all users of `data`.

    Args:
        from_trial: begin with the weights of the trial's best epoch instead of fresh ones.

    Raises:
        UserError: the weights of the trial are not there, or cannot be begun with; too few workers for a backbone
            that is to be divided.
    """
    runs = paths.runs_folder() / search.name
    start: Start | None = None
    if from_trial:
        if config.model.collaborative_training == "frozen":
            raise UserError(
                "--from-trial: a frozen M_cf of the trial knows the trial's users alone; promote without the option"
            )
        users = sample_users(data.num_users, config.search.user_share, config.search.seed)
        start = Start(runs / "trials" / str(trial.number) / BEST, users)
    processes, fewest = workers or config.promotion.workers, config.promotion.fewest_workers
    had = config.cluster
    if had.shard_backbone and processes == 1:
        raise UserError("cluster.shard_backbone divides the backbone among processes: give --workers 2 or more")
    if fewest is not None:
        fewest = min(max(fewest, 1 + had.shard_backbone), processes)
    cores = had.slots * had.workers_per_trial * had.cpus_per_worker
    config = with_settings(config, dict(trial.design.settings), f"the design of trial {trial.number}")
    widened = replace(
        config,
        training=replace(config.training, epochs=config.promotion.epochs or config.training.epochs),
        search=replace(config.search, user_share=1.0),
        # The cores that ran the search's trials side by side now run one training; a GPU is shared with nobody.
        cluster=replace(
            had,
            slots=1,
            workers_per_trial=processes,
            cpus_per_worker=max(1, cores // processes),
            gpus_per_worker=1.0 if had.gpus_per_worker else 0.0,
        ),
    )
    stored = widened.as_dict()
    deciding = {name: stored[name] for name in ("data", "backbone", "model", "training")}
    identity = [search.fingerprint, data.fingerprint, str(trial.architecture), trial.seed, deciding]
    text = json.dumps([*identity, *([] if start is None else [start.fingerprint])], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    return PromotionPlan(trial, widened, runs / "promotions" / f"trial-{trial.number}-{key}", fewest, start)


def train_winner(
    plan: PromotionPlan,
    folder: Path,
    on_epoch: Callable[[EpochEnded], None],
    on_trouble: Callable[[str], None],
    stop: Event,
) -> bool:
    """Train on Ray, going on from the plan's checkpoint; False where `stop` ended it early.

    Args:
        on_trouble: told, in a line, of workers that died and of machines that are waited for.

    Raises:
        PromotionError: the training raised.
    """
    prepared = paths.data_folder(plan.config.data.name)
    training = FinetuneTraining(plan.config, prepared, paths.backbones_folder(), plan.start)
    task = TrialTask(plan.trial.number, 1, plan.trial.design, plan.trial.seed, plan.folder)
    try:
        make = partial(SlotExecutor, training, plan.config.cluster, folder, fewest_workers=plan.fewest_workers)
        # The search's own limit for a hang is no measure here: an epoch on all users takes longer.
        with closing(LastingExecutor(make, Watchdog(None))) as executor:
            return _follow(executor, task, on_epoch, on_trouble, stop)
    except ExecutorDied as died:
        raise PromotionError(str(died)) from died


def _follow(
    executor: Executor,
    task: TrialTask,
    on_epoch: Callable[[EpochEnded], None],
    on_trouble: Callable[[str], None],
    stop: Event,
) -> bool:
    executor.submit(task)
    stopped_at: float | None = None
    while True:
        event = executor.next_event(POLL_SECONDS)
        if isinstance(event, EpochEnded):
            on_epoch(event)
        elif isinstance(event, SlotsWaiting):
            if event.why is not None:
                on_trouble(event.why)
        elif isinstance(event, TrialFailed):
            raise PromotionError(event.error)
        elif isinstance(event, TrialLost):
            if event.is_storage or task.attempt == MOST_ATTEMPTS:
                raise PromotionError(event.reason)
            on_trouble(f"goes on after its last whole epoch: {last_line(event.reason)}")
            task = replace(task, attempt=task.attempt + 1)
            executor.submit(task)
        elif isinstance(event, TrialCompleted | TrialStopped):
            return isinstance(event, TrialCompleted)
        if stop.is_set():
            if stopped_at is None:
                stopped_at = time.monotonic()
                executor.stop()
            elif time.monotonic() - stopped_at > STOP_SECONDS:
                return False


def pack(plan: PromotionPlan) -> Package:
    """The trained winner as a package, written once, and loaded from what was written."""
    if not plan.package.exists():
        training = FinetuneTraining(plan.config, paths.data_folder(plan.config.data.name), paths.backbones_folder())
        write_package(
            plan.package,
            plan.config.finetune,
            plan.trial.architecture,
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
