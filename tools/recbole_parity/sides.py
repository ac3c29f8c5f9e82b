"""One training of either side, up to the ranks of all users, which stay on disk: what is there is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from tools.recbole_parity.environment import REQUIREMENTS, python_of
from tools.recbole_parity.recbole_input import CLASSES, DATA_SET, recbole_settings, write_input
from trainers.baselines.build import build_baseline
from trainers.baselines.config import SequentialConfig
from trainers.baselines.rows import TrainingWindows
from trainers.baselines.train import load_baseline, rank_users, train_baseline
from trainers.data.sequence_data import SequenceData
from trainers.errors import UserError
from trainers.metrics import summarise
from trainers.ranks import Setting, UserRanks, describe_ranks
from trainers.reports import EpochReport

VALIDATION, TEST = Setting("validation"), Setting("test")
"""Seen items stay in the ranking, on both sides."""
REPORT_EVERY = 10
"""Epochs"""
WORKER = Path(__file__).with_name("recbole_side.py")
OUR_CODE = b"".join(path.read_bytes() for path in sorted(Path(__file__).parents[2].glob("trainers/baselines/*.py")))
RECBOLE_CODE = b"".join(path.read_bytes() for path in (WORKER, WORKER.with_name("recbole_input.py"), REQUIREMENTS))
"""As it was when this process read it: a later change is not what is being run"""


@dataclass(frozen=True)
class Comparison:
    """A model on a data set, for all its seeds."""

    model: str
    config: SequentialConfig
    data: SequenceData
    train_batch: int
    """Rows of RecBole's step"""
    folder: Path
    """Of what is kept"""


def same_step(config: SequentialConfig, data: SequenceData) -> int:
    """How many of RecBole's rows, of one target each, make a step with as many targets as ours has on average."""
    windows = TrainingWindows.of(data, config.history)
    targets = len(data.training_pairs()[0]) - int((data.training_ends > data.offsets[:-1]).sum())
    return max(1, round(config.batch_size * targets / len(windows)))


def ours(one: Comparison, seed: int) -> UserRanks:
    """Test ranks by our model, from an earlier call where that left them.

    Raises:
        NotFiniteError: the training diverged.
    """
    label = f"{one.model} seed {seed} ours"

    def train(folder: Path) -> tuple[tuple[UserRanks, ...], int]:
        build = partial(build_baseline, one.config, one.data.catalogue, 0, _no_texts, _no_texts)
        result = train_baseline(one.config, build, one.data, seed=seed, folder=folder, on_epoch=partial(_report, label))
        return rank_users(load_baseline(build, folder), one.data, (VALIDATION, TEST)), result.best_epoch

    return kept(one.folder / f"ours-{_digest(one, OUR_CODE)}" / str(seed), label, train)


def recbole(one: Comparison, seed: int, environment: Path) -> UserRanks:
    """Test ranks by RecBole's model, from an earlier call where that left them.

    Args:
        environment: where RecBole's environment is, or is made.

    Raises:
        UserError: RecBole could not be installed or its training failed.
    """
    label = f"{one.model} seed {seed} RecBole"

    def train(folder: Path) -> tuple[tuple[UserRanks, ...], int]:
        write_input(one.data, one.config, folder)
        task, output, log = folder / "task.json", folder / "ranks.json", folder.with_name("recbole.log")
        settings = recbole_settings(one.config, one.data, train_batch=one.train_batch, seed=seed, folder=folder)
        described = {
            "label": label,
            "model": CLASSES[type(one.config)],
            "data_set": DATA_SET,
            "settings": settings,
            "items": one.data.num_items,
            "sequences": str(folder / "sequences.json"),
            "output": str(output),
        }
        task.write_text(json.dumps(described), "utf-8")
        # -I: neither the project nor its environment must be importable in there.
        command = [str(python_of(environment)), "-I", str(WORKER), str(task)]
        with log.open("w") as errors:
            status = subprocess.run(command, cwd=folder, stderr=errors).returncode
        if status:
            said = log.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            raise UserError(f"{label} ended with status {status}: {said or 'no word'} (more in {log})")
        found = json.loads(output.read_text("utf-8"))
        tables = tuple(rank_table(one.data, setting, found[setting.split]) for setting in (VALIDATION, TEST))
        return tables, int(found["best_epoch"])

    return kept(one.folder / f"recbole-{_digest(one, RECBOLE_CODE)}" / str(seed), label, train)


def kept(folder: Path, label: str, train: Callable[[Path], tuple[tuple[UserRanks, ...], int]]) -> UserRanks:
    """The test ranks in `folder`, made by `train` in a folder of its own where they are missing."""
    if not (folder / TEST.file).exists():
        began, work = time.perf_counter(), folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        (validation, test), best_epoch = train(work)
        for ranks in (validation, test):  # the one whose presence says that both are there comes last
            ranks.write(folder / ranks.setting.file)
        shutil.rmtree(work)
        seconds, mrr = time.perf_counter() - began, summarise(validation).mrr
        print(f"{label}: validation MRR {mrr:.4f} in epoch {best_epoch}, {seconds:.0f} s", flush=True)
    return UserRanks.read(folder / TEST.file)


def rank_table(data: SequenceData, setting: Setting, rows: list[tuple[int, int, int]]) -> UserRanks:
    """RecBole's (user, items above, items level) as our table of ranks, users ascending."""
    columns: NDArray[np.int64] = np.array(sorted(rows), dtype=np.int64)
    users, above, level = columns.T
    ranked = (torch.from_numpy(above.copy()), torch.from_numpy(level.copy()))
    return describe_ranks(data, setting, users, ranked, data.training_counts())


def _digest(one: Comparison, code: bytes) -> str:
    """Names what decides on the ranks: a change of settings, data or code begins anew."""
    described = {**asdict(one.config), "data": one.data.fingerprint, "train_batch": one.train_batch}
    content = json.dumps(described).encode() + code
    return hashlib.sha256(content).hexdigest()[:12]


def _report(label: str, report: EpochReport) -> bool:
    if report.epoch % REPORT_EVERY == 0:
        print(f"{label}: epoch {report.epoch}, validation MRR {report.validation.mrr:.4f}", flush=True)
    return True


def _no_texts(*asked: object) -> NoReturn:
    raise TypeError(f"no model here reads texts, by {asked}")
