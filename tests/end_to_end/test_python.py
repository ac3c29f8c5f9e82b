"""The Python side as a user writes it: every block of its document, one after another."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.contracts.repository import ROOT
from tests.end_to_end.shell import Shell, assert_own_lines_only
from tests.end_to_end.stage import Stage

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

STANDS_FOR = {
    "configs/ml-100k.yaml": "smoke",
    '"50", "172"': '"w3", "w4"',
    'similar("50"': 'similar("w3"',
    "a space opera": "red lamp",
    "a horror film in space": "green lamp",
}
"""What the document names, and what takes its place here: data and a backbone of seconds"""


def blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text("utf-8"), re.S | re.M)


def run(folder: Path, script: str) -> str:
    """What a program of these lines prints, in a home of its own."""
    shell = Shell(folder)
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-u", "script.py"]
    done = subprocess.run(
        command, cwd=folder, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert_own_lines_only(done.stdout.splitlines())
    assert Stage(shell.home).left_behind(5) == []
    return done.stdout


def test_every_block_of_the_document_runs(tmp_path: Path) -> None:
    found = blocks(ROOT / "docs/python.md")
    assert len(found) > 5, "the blocks are seen"
    script = "\n".join(found)
    for named, ours in STANDS_FOR.items():
        assert named in script
        script = script.replace(named, ours)
    told = run(tmp_path, script)
    assert "COMPLETED" in told
    assert "seen items left out: True test MRR: 0." in told
    assert "did you mean 'demo'?" in told
    assert {"best-so-far.png", "effects.svg", "demo.csv", "demo-report"} <= {path.name for path in tmp_path.iterdir()}
    trials = pd.read_csv(tmp_path / "demo.csv")
    shown = json.loads(Shell(tmp_path).run("show", "demo", "--json"))
    assert [trial["architecture"] for trial in shown["trials"]] == trials["architecture"].tolist()
    assert [trial["mrr"] for trial in shown["trials"]] == pytest.approx(trials["mrr"].tolist())
    best = shown["best_trial"]
    assert f"COMPLETED {best} {trials['architecture'][best]} 0." in told


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_every_block_is_python(document: str) -> None:
    for block in blocks(ROOT / document):
        ast.parse(block)
