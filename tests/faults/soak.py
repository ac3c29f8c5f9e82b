"""A search of many short trials under a random fault every few seconds: `make soak`.

    python -m tests.faults.soak [--folder FOLDER] [--trials 200] [--seed SEED]

Real processes all: controllers, Ray, workers, MLflow's server, the database. Interrupted, it goes on in FOLDER. An
observer that shares nothing with the controller reads the database after each fault and counts what was lost (a trial
that was COMPLETED and is so no longer, or with another result) and what is double (a design twice, a trial with two
results in MLflow, more trials than the budget). Ends with exit code 1 unless both are 0 and all trials ended as they
must.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from mlflow.tracking import MlflowClient

from mixrec_automl.store.records import SearchState, Trial, TrialState
from tests.end_to_end.drive import NAME
from tests.end_to_end.stage import Controller, Stage, plan
from tests.mixrec_automl.cluster.trainings import true_mrr
from tests.mlflow_server import MlflowServer

SECONDS_BETWEEN = (2.0, 7.0)
LOCK_SECONDS = 8.0
"""Longer than SQLite waits for a lock (`BUSY_SECONDS`), so that the controller meets an error."""
FREEZE_SECONDS = 4.0
ILLS = ("raise", "report NaN", "hang", "freeze")
EVERY_ILL = 20
"""One trial of so many cannot be trained."""


class Soak:
    """The search, what has been done to it and what was seen of it."""

    def __init__(self, folder: Path, trials: int, seed: int) -> None:
        self.count = trials
        self.random = random.Random(seed)
        self.ills = {number: ILLS[number // EVERY_ILL % len(ILLS)] for number in range(7, trials, EVERY_ILL)}
        self.server = MlflowServer(folder / "mlflow-server")
        self.stage = Stage(folder / "home", tracking_uri=self.server.uri)
        self.faults: Counter[str] = Counter()
        self.seen: dict[int, float | None] = {}
        """MRR of each trial that has been seen COMPLETED"""
        self.lost: set[int] = set()
        self._ledger = folder / "ledger.jsonl"
        for line in self._ledger.read_text().splitlines() if self._ledger.exists() else []:
            entry = json.loads(line)
            self.faults[entry["fault"]] += 1
            self.seen |= {int(number): mrr for number, mrr in entry["completed"].items()}
            self.lost |= set(entry["lost"])

    @property
    def plan(self) -> dict[str, object]:
        patient = {"max_failure_rate": 1.0, "hang_seconds": 4.0, "max_attempts": 5}
        return plan(trials=self.count, slots=2, epochs=3, seconds=0.3, ills=list(self.ills.items()), search=patient)

    def observe(self, fault: str | None = None) -> tuple[Trial, ...]:
        """Compare the database with what was seen of it before, and note a fault in the ledger."""
        trials = self.stage.trials()
        now = {trial.number: trial.mrr for trial in trials if trial.state is TrialState.COMPLETED}
        self.lost |= {number for number, mrr in self.seen.items() if now.get(number) != mrr}
        new = {number: mrr for number, mrr in now.items() if number not in self.seen}
        self.seen |= new
        if fault is not None:
            self.faults[fault] += 1
            with self._ledger.open("a") as ledger:
                ledger.write(json.dumps({"fault": fault, "completed": new, "lost": sorted(self.lost)}) + "\n")
        return trials

    # Faults; each returns once the world is as it was, but for what the search has to mend

    def kill_a_worker(self, _: Controller) -> None:
        self._signal_a_worker(signal.SIGKILL)

    def freeze_a_worker(self, _: Controller) -> None:
        self._signal_a_worker(signal.SIGSTOP)

    def kill_the_keeper(self, _: Controller) -> None:
        for pid, line in self.stage.processes().items():
            if line.startswith("ray::SlotRunner"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill_the_controller(self, controller: Controller) -> None:
        controller.kill()

    def press_ctrl_c(self, controller: Controller) -> None:
        with suppress(ProcessLookupError):
            os.killpg(controller.process.pid, signal.SIGINT)
        controller.finish(60)

    def freeze_mlflow(self, _: Controller) -> None:
        self.server.freeze()
        time.sleep(FREEZE_SECONDS)
        self.server.thaw()

    def lock_the_database(self, _: Controller) -> None:
        path = self.stage.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(LOCK_SECONDS)
            connection.execute("ROLLBACK")

    def _signal_a_worker(self, number: signal.Signals) -> None:
        workers = self.stage.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(workers), number)

    @property
    def choices(self) -> dict[Callable[[Controller], None], int]:
        """Faults and how often each comes: the dearest to mend comes least."""
        return {
            self.kill_a_worker: 6,
            self.freeze_a_worker: 3,
            self.lock_the_database: 2,
            self.freeze_mlflow: 2,
            self.kill_the_controller: 2,
            self.press_ctrl_c: 1,
            self.kill_the_keeper: 1,
        }

    # The run

    def run(self) -> None:
        """Until the search is complete."""
        self.server.start()
        try:
            while not self._is_complete():
                self._run_a_controller()
        finally:
            self.server.kill()

    def _is_complete(self) -> bool:
        repository = self.stage.repository()
        with closing(repository):
            states = {search.name: search.state for search in repository.searches()}
        return states.get(NAME) is SearchState.COMPLETED

    def _run_a_controller(self) -> None:
        with self.stage.controller(self.plan) as controller:
            controller.wait_for(r"epoch \d/|search s: COMPLETED", 120)
            while controller.process.poll() is None:
                time.sleep(self.random.uniform(*SECONDS_BETWEEN))
                if controller.process.poll() is not None:
                    break
                choices = self.choices
                (fault,) = self.random.choices(list(choices), list(choices.values()))
                fault(controller)
                trials = self.observe(fault.__name__.replace("_", " "))
                ended = sum(trial.state.is_final for trial in trials)
                print(f"fault {self.faults.total():3d}  {fault.__name__:20s} {ended:4d} of {self.count} trials ended")

    # The verdict

    def doubles(self) -> int:
        """Whatever is there more than once."""
        trials = self.stage.trials()
        designs = Counter((trial.architecture, trial.seed) for trial in trials)
        self.server.start()
        try:
            client = MlflowClient(tracking_uri=self.server.uri)
            ids = [experiment.experiment_id for experiment in client.search_experiments()]
            runs = client.search_runs(ids, "tags.`mixrec.trial` != ''", max_results=10_000)
        finally:
            self.server.kill()
        results = Counter(run.data.tags["mixrec.trial"] for run in runs if run.info.status == "FINISHED")
        missing = {trial.number for trial in trials if trial.state is TrialState.COMPLETED} - set(map(int, results))
        self.lost |= missing
        return sum(count - 1 for count in [*designs.values(), *results.values()]) + max(0, len(trials) - self.count)

    def wrong_ends(self) -> list[Trial]:
        """Trials that did not end as their design must: FAILED those that cannot be trained, all others COMPLETED."""

        def is_right(trial: Trial) -> bool:
            if trial.number in self.ills:
                return trial.state is TrialState.FAILED
            return trial.state is TrialState.COMPLETED and trial.mrr == true_mrr(trial.architecture)

        return [trial for trial in self.stage.trials() if not is_right(trial)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/soak-of-mixrec"), help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="default: drawn")
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {given.seed}, in {folder}")
    began = time.monotonic()
    soak = Soak(folder, given.trials, given.seed)
    soak.run()
    trials = soak.observe()
    doubles, wrong = soak.doubles(), soak.wrong_ends()
    attempts = sum(trial.attempt for trial in trials)
    for fault, times in soak.faults.most_common():
        print(f"  {fault:22s} {times:4d}")
    print(f"trials {len(trials)}, of which {len(soak.ills)} cannot be trained; {attempts} attempts")
    print(f"faults {soak.faults.total()}, lost = {len(soak.lost)}, double = {doubles}, wrong = {len(wrong)}")
    print(f"{time.monotonic() - began:.0f} s")
    if soak.lost or doubles or wrong or len(trials) != given.trials:
        sys.exit(f"lost {sorted(soak.lost)}, wrong {wrong}")
    (folder / "ledger.jsonl").rename(folder / f"ledger-{time.time():.0f}.jsonl")


if __name__ == "__main__":
    main()
