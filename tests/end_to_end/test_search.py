"""A search as a process: to its end, and interrupted as a user or a scheduler does it, then resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mixrec_automl.store.records import SearchState, TrialState
from mixrec_automl.store.repository import Repository

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
SECONDS_TO_END = 20


@contextmanager
def driving(home: Path, *, trials: int, slots: int, epochs: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """`drive.py` on the search "s"; killed at the end of the context if it still runs."""
    command = [sys.executable, "-u", "-m", "tests.end_to_end.drive", "s"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MIXREC_DATABASE_URL")
    }
    process = subprocess.Popen(
        [*command, str(trials), str(slots), str(epochs), str(seconds)],
        cwd=ROOT,
        env={**environment, "MIXREC_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read lines until one holds `text`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"ended without {text!r}:\n{''.join(lines)}")


def left_behind(home: Path) -> list[str]:
    """Command lines of all processes that were started with this home in their environment."""
    mark, found = f"MIXREC_HOME={home}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " ") or folder.name)
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def repository_of(home: Path) -> Repository:
    return Repository.open(f"sqlite:///{home / 'mixrec.db'}")


def test_a_search_runs_to_its_end(home: Path) -> None:
    with driving(home, trials=2, slots=1, epochs=2, seconds=0.1) as process:
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert "trial 1  000-001  COMPLETED  MRR" in output
    assert "mixrec-automl promote s" in output
    repository = repository_of(home)
    assert repository.search("s").state is SearchState.COMPLETED
    assert [trial.state for trial in repository.trials("s")] == [TrialState.COMPLETED] * 2
    assert [(it.trial, it.epoch) for it in repository.observations("s")] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert left_behind(home) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to see what is left behind")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_search_that_can_be_resumed(home: Path, sent: signal.Signals) -> None:
    with driving(home, trials=1, slots=1, epochs=8, seconds=1.0) as process:
        wait_for(process, "trial 0  000-000  epoch 2/8")
        ray_folders = set(re.findall(r"/tmp/mixrec-\w+", " ".join(left_behind(home))))
        assert len(ray_folders) == 1, "the checks below can see Ray"
        began = time.monotonic()
        if sent is signal.SIGINT:
            os.killpg(process.pid, sent)  # a terminal sends Ctrl-C to all processes in the foreground
        else:
            process.send_signal(sent)
        output, _ = process.communicate(timeout=60)
        took = time.monotonic() - began
    assert process.returncode == 130, output
    assert took < SECONDS_TO_END, output
    assert "mixrec-automl resume s" in output
    assert left_behind(home) == []
    assert not any(Path(folder).exists() for folder in ray_folders)
    repository = repository_of(home)
    assert repository.search("s").state is SearchState.STOPPED
    assert [trial.state for trial in repository.trials("s")] == [TrialState.QUEUED]
    recorded = {it.epoch for it in repository.observations("s", 0)}

    with driving(home, trials=1, slots=1, epochs=8, seconds=0.1) as process:
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert [(trial.state, trial.attempt) for trial in repository.trials("s")] == [(TrialState.COMPLETED, 2)]
    second = {it.epoch for it in repository.observations("s", 0) if it.attempt == 2}
    assert recorded | second == set(range(1, 9))
    assert len(recorded & second) <= 1, "at most the epoch that was lost on the way is trained again"
