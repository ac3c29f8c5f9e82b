"""How busy a search keeps its slots, and what the controller itself takes.

    python benchmarks/search_overhead.py [FOLDER]        about 18 minutes; goes on in FOLDER where it was interrupted

200 trials of 10 seconds on 2 slots, with the real proposer on 36 bits, the real database, Ray and MLflow; only the
training is a pause. All figures come from the times in the database, so they hold for a run that was resumed as well:

- idle: from the end of one trial of a slot to the start of the next, added up over all trials but the first of each
  slot, as a share of what the slots had. That is the controller's overhead on the wall clock.
- busy: seconds of training, less what is spent outside of it, as a share of the same.
- CPU: of the controller's process (proposals, database, MLflow, view), as a share of one core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.config import from_dict
from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.store.records import Trial
from mixrec_automl.store.repository import Repository
from search_spaces.damoe import DamoeSpace

NAME = "overhead"
TRIALS, SLOTS, SECONDS, EPOCHS = 200, 2, 10.0, 5


@dataclass(frozen=True)
class Pause:
    """A training that takes `SECONDS` and leaves the processors alone; what it scores has no meaning."""

    seconds: float
    epochs: int

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore:
        score = 0.05 + 0.01 * sum(trial.architecture.bits[::2]) / len(trial.architecture.bits)
        for epoch in range(1, self.epochs + 1):
            time.sleep(self.seconds / self.epochs)
            on_epoch(epoch, {"validation_mrr": score})
        return TrialScore(score, 0.001)


def seconds_between(first: Trial, second: Trial) -> float:
    """From the end of the first trial to the start of the second."""
    assert first.finished_at is not None
    assert second.started_at is not None
    return (second.started_at - first.finished_at).total_seconds()


def slots_of(trials: tuple[Trial, ...]) -> list[list[Trial]]:
    """The trials of each slot in order: each trial goes to the slot that had been free for longest."""
    slots: list[list[Trial]] = [[] for _ in range(SLOTS)]
    for trial in sorted(trials, key=lambda trial: trial.started_at or trial.created_at):  # type: ignore[arg-type, return-value]
        free = min(slots, key=lambda slot: slot[-1].finished_at.timestamp() if slot else 0.0)  # type: ignore[union-attr]
        free.append(trial)
    return slots


def main(folder: Path) -> None:
    import os

    os.environ |= {"MIXREC_HOME": str(folder), "MIXREC_DATABASE_URL": f"sqlite:///{folder / 'mixrec.db'}"}
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    from mixrec_automl.launch import launch

    repository = Repository.open()
    config = from_dict(
        {
            "data": {"name": "none"},
            "training": {"epochs": EPOCHS},
            "search": {"trials": TRIALS},
            "cluster": {"slots": SLOTS, "trials_per_process": TRIALS},
        },
        "benchmark",
    )
    is_new = NAME not in {search.name for search in repository.searches()}

    def record() -> None:
        if is_new:
            repository.create_search(NAME, config.as_dict(), "fingerprint")

    proposer = AxProposer(DamoeSpace(backbone_layers=12), config.search.initial_trials)
    began, used = time.monotonic(), time.process_time()
    launch(NAME, config, Pause(SECONDS, EPOCHS), proposer, repository, Console(), record=record)
    wall, used = time.monotonic() - began, time.process_time() - used

    trials = repository.trials(NAME)
    slots = slots_of(trials)
    gaps = [seconds_between(first, second) for slot in slots for first, second in pairwise(slot)]
    had = sum(gaps) + sum((t.finished_at - t.started_at).total_seconds() for t in trials)  # type: ignore[operator, misc]
    proposing = [trial.proposal_seconds for trial in trials]
    print(f"trials                      {len(trials):8d}, {len({trial.architecture for trial in trials})} designs")
    print(f"slots had                   {had:8.1f} s")
    print(f"idle between trials         {sum(gaps):8.1f} s  {100 * sum(gaps) / had:6.2f} %")
    print(f"busy                        {len(trials) * SECONDS:8.1f} s  {100 * len(trials) * SECONDS / had:6.2f} %")
    print(f"longest gap                 {max(gaps):8.2f} s")
    print(f"a proposal: mean, longest   {sum(proposing) / len(proposing):8.2f} s, {max(proposing):.2f} s")
    print(f"this run, start included    {wall:8.1f} s; CPU of this process {used:.1f} s, {used / wall:.1%} of a core")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="mixrec-overhead-")))
