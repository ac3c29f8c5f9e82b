"""What the fault tests share: a stage, and the table of recovery times that they print at the end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.stage import Stage
from tests.mlflow_server import MlflowServer

_RECOVERIES = pytest.StashKey[list[tuple[str, str, float]]]()


class Recoveries:
    """Keeps how long each recovery took, for the table at the end."""

    def __init__(self, rows: list[tuple[str, str, float]]) -> None:
        self._rows = rows

    def add(self, fault: str, until: str, seconds: float) -> None:
        """`until` says in words what had come back `seconds` after the fault, or after its end."""
        self._rows.append((fault, until, seconds))

    @contextmanager
    def timed(self, fault: str, until: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.add(fault, until, time.monotonic() - began)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RECOVERIES] = []


@pytest.fixture
def recoveries(request: pytest.FixtureRequest) -> Recoveries:
    return Recoveries(request.config.stash[_RECOVERIES])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_RECOVERIES, [])
    if not rows:
        return
    terminalreporter.section("recovery times")
    terminalreporter.line("| fault | until | seconds |")
    terminalreporter.line("|---|---|---|")
    for fault, until, seconds in rows:
        terminalreporter.line(f"| {fault} | {until} | {seconds:.1f} |")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "home")


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "mlflow-server")
    server.start()
    yield server
    server.kill()


class SmallDisk:
    """A file system of a few megabytes that can be filled, emptied and made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def empty(self) -> None:
        (self.folder / "filler").unlink()

    def remount(self, how: str) -> None:
        """`how` is "ro" or "rw"."""
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mounted on the folder of a stage's runs."""
    folder = tmp_path / "home" / "runs"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here, which takes root: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)
