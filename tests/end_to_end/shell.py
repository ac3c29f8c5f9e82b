"""Commands typed in a home of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


class Shell:
    """Types commands in one home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        mine = ("RAY_", "MLFLOW_", "MIXREC_", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        self.environment = {**kept, "MIXREC_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "mixrec_automl.cli.app", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """What the command prints, standard error included."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=200)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == code, output
        return output


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read lines until one holds `text`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"ended without {text!r}:\n{''.join(lines)}")


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it prints after `wait_for`, until its end. (`communicate` would lose what was read ahead.)"""
    assert process.stdout is not None
    rest = process.stdout.read()
    process.wait()
    return rest


def assert_own_lines_only(lines: Sequence[str]) -> None:
    """Lines of Ray, MLflow or transformers carry a level, a source file or a bar."""
    foreign = [line for line in lines if re.search(r"INFO|WARN|ERROR|\.py:\d|it/s|pid=|Registered|Downloading", line)]
    assert foreign == []
