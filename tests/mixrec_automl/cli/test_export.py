"""`export` as it is typed: the file, the lines that it prints, and what is refused."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mixrec_automl.cli.app import app
from tests.contracts.repository import ROOT
from tests.trainers.baselines.test_package import packed
from tests.trainers.tiny_package import make_package
from trainers import export
from trainers.package import read_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("made"), epochs=1).package


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["export", *words], env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result.output


def test_the_printed_lines_load_and_ask_the_file(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "a model's.pt2"
    said = run(str(package), "--out", str(file))
    where, _, *lines = said.splitlines()
    assert where.startswith(f"{file}: {file.stat().st_size / 1e6:.1f} MB; ")
    assert len(lines) == 3, "as they can be copied"
    code = "\n".join([*lines, "print(scores.tolist())"])
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    wanted = read_package(package).score([np.array([0], dtype=np.int32)])[0]
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), wanted, atol=1e-4, rtol=0)


def test_the_block_of_the_document_asks_it(package: Path, tmp_path: Path) -> None:
    run(str(package), "--out", str(tmp_path / "shop.pt2"))
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/recommending.md").read_text("utf-8"), re.S | re.M)
    assert '("p30", "p00", "p03")' in block
    block = block.replace('("p30", "p00", "p03")', '("i3", "i0", "i5")')
    done = subprocess.run([sys.executable, "-I", "-c", block], check=True, capture_output=True, text=True, cwd=tmp_path)
    told = ast.literal_eval(done.stdout)
    assert len(told) == 4
    assert all(title.startswith("Thing ") for title in told)


def test_other_answers_end_it_in_one_line(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda *_: 0.002)
    said = run(str(package), "--out", str(tmp_path / "model.pt2"), code=2)
    assert said.count("\n") == 1
    assert "differ from the model's by up to 0.002" in said
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = run(str(package), "--out", str(tmp_path / "file" / "model.pt2"), code=2)
    assert said.startswith("error: cannot write ")


def test_a_baseline_is_refused(tmp_path: Path) -> None:
    packed("mf", tmp_path)
    said = run(str(tmp_path / "package"), "--out", str(tmp_path / "model.pt2"), code=2)
    assert said.startswith("error: only MixRec can be exported")
    assert said.count("\n") == 1
