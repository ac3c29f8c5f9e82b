"""Each example runs as it stands and prints what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_examples_are_those_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"optuna_study.py", "ray_tune_run.py", "ax_client.py"}


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("name", "told"), [("optuna_study.py", "3.9"), ("ray_tune_run.py", "'layers'"), ("ax_client.py", "bit_0")]
)
def test_an_example_runs(name: str, told: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    environment.pop("RAY_ADDRESS", None)
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert told in ran.stdout.strip().splitlines()[-1]
