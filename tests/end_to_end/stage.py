"""A home with a database and MLflow, and controllers in it as processes that a test starts, watches and kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mixrec_automl.store.records import Observation, Search, Trial, TrialState
from mixrec_automl.store.repository import Repository
from tests.end_to_end.drive import NAME
from tests.mixrec_automl.cluster.trainings import true_mrr

ROOT = Path(__file__).parents[2]
NOT_PASSED_ON = ("RAY_ADDRESS", "MIXREC_DATABASE_URL", "MLFLOW_TRACKING_URI")
WORKER = "ray::RayTrainWorker"
SECONDS_TO_END = 20
"""Within this a command ends that was asked to."""


def plan(
    *, trials: int, slots: int = 1, search: Mapping[str, Any] | None = None, cluster: Mapping[str, Any] | None = None,
    **training: Any,
) -> dict[str, Any]:  # fmt: skip
    """For `drive`; `training` are the fields of `Fragile`."""
    return {
        "search": {"trials": trials, **(search or {})},
        "cluster": {"slots": slots, **(cluster or {})},
        "training": training,
    }


@dataclass
class Stage:
    home: Path
    database_url: str = ""
    tracking_uri: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    """The beginning of a controller's command line, which brings it into a namespace"""

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.database_url = self.database_url or f"sqlite:///{self.home / 'mixrec.db'}"
        self.tracking_uri = self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
        own = {
            "MIXREC_HOME": str(self.home),
            "MIXREC_DATABASE_URL": self.database_url,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
        }
        return inherited | own | self.environment

    @contextmanager
    def controller(self, what: Mapping[str, Any]) -> Iterator[Controller]:
        """A process that runs the search; killed at the end of the context if it is still there."""
        output = self.home / "output.txt"
        with output.open("ab") as log:
            process = subprocess.Popen(
                [*self.inside, sys.executable, "-u", "-m", "tests.end_to_end.drive", json.dumps(what)],
                cwd=ROOT,
                env=self.variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Controller(process, output, output.stat().st_size)
        finally:
            process.kill()
            process.wait()

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """`mixrec-automl` with these arguments."""
        command = [sys.executable, "-m", "mixrec_automl.cli.app", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.variables, capture_output=True, text=True, timeout=timeout, check=False
        )

    def repository(self) -> Repository:
        return Repository.open(self.database_url)

    def trials(self) -> tuple[Trial, ...]:
        """As recorded now; none where the search is not recorded yet."""
        with closing(self.repository()) as repository:
            known = {search.name for search in repository.searches()}
            return repository.trials(NAME) if NAME in known else ()

    def search(self) -> Search:
        with closing(self.repository()) as repository:
            return repository.search(NAME)

    def observations(self, trial: int | None = None) -> tuple[Observation, ...]:
        with closing(self.repository()) as repository:
            return repository.observations(NAME, trial)

    def wait_for_trials(self, are_there: Callable[[tuple[Trial, ...]], bool], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not are_there(self.trials()):
            if time.monotonic() > deadline:
                pytest.fail(f"still {self.trials()}\n{(self.home / 'output.txt').read_text()[-4000:]}")
            time.sleep(0.1)

    def wait_for_attempt(self, attempt: int, seconds: float = 120) -> int:
        """Until the one trial that is in its `attempt`-th has finished an epoch of it; its number."""
        self.wait_for_trials(lambda trials: any(trial.attempt == attempt for trial in trials), seconds)
        (number,) = (trial.number for trial in self.trials() if trial.attempt == attempt)
        self.wait_for_trials(lambda _: any(seen.attempt == attempt for seen in self.observations(number)), seconds)
        return number

    def processes(self) -> dict[int, str]:
        """Command line of every process that has this home in its environment, but for MLflow's server."""
        mark, found = f"MIXREC_HOME={self.home}".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    line = (folder / "cmdline").read_text().replace("\0", " ")
                    found[int(folder.name)] = line or folder.name
            except OSError:
                continue  # gone meanwhile, or another user's
        return found

    def workers(self) -> list[int]:
        return [pid for pid, line in self.processes().items() if line.startswith(WORKER)]

    def left_behind(self, seconds: float = 0.0, *, but: tuple[str, ...] = ()) -> list[str]:
        """What still runs `seconds` after a controller's end, apart from processes whose command begins like `but`."""
        deadline = time.monotonic() + seconds
        while True:
            found = [line for line in self.processes().values() if not line.startswith(but)]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


@dataclass
class Controller:
    process: subprocess.Popen[bytes]
    output_file: Path
    output_from: int

    @property
    def output(self) -> str:
        return self.output_file.read_bytes()[self.output_from :].decode(errors="replace")

    def wait_for(self, pattern: str, seconds: float = 90) -> re.Match[str]:
        """Until its output holds `pattern`."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.output)) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no {pattern!r} came:\n{self.output}")
            time.sleep(0.05)
        return found

    def finish(self, seconds: float = 150) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running:\n{self.output[-4000:]}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def check_results(trials: tuple[Trial, ...], *, count: int, failed: tuple[int, ...] = ()) -> None:
    """The right number of trials, none twice, each with the result that its design has."""
    assert [trial.number for trial in trials] == list(range(count))
    assert len({(trial.architecture, trial.seed) for trial in trials}) == count
    for trial in trials:
        expected = TrialState.FAILED if trial.number in failed else TrialState.COMPLETED
        assert trial.state is expected, trial
        assert trial.mrr == (None if trial.number in failed else true_mrr(trial.architecture))
