"""Files stay short, and neither data nor weights enter the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.committed_files import MOST_BYTES, MOST_LINES, main, problem_of
from tests.contracts.repository import ROOT, sources, tracked_files


def test_every_source_file_is_short() -> None:
    files = [*sources(), *sources("tests")]
    assert len(files) > 100, "the check sees the files"
    assert [f"{path}: {problem}" for path in files if (problem := problem_of(path))] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git clone, to know what belongs to the repository")
def test_no_committed_file_is_long_or_data_or_weights() -> None:
    files = tracked_files()
    assert ROOT / "pyproject.toml" in files, "the check sees the files"
    assert [f"{path}: {problem}" for path in files if (problem := problem_of(path))] == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("long.py", b"x = 1\n" * (MOST_LINES + 1), "401 lines"),
        ("large.md", b"x" * (MOST_BYTES + 1), "200,001 bytes"),
        ("large.png", b"\x89PNG" + b"\0" * MOST_BYTES, "bytes"),
        ("ml-100k.inter", b"user_id:token\n", "is data"),
        ("items.jsonl", b"{}\n", "is data"),
        ("damoe_bench.parquet", b"PAR1", "is data"),  # elsewhere than in benchmarks
        ("model.safetensors", b"\0", "is weights"),
        ("items.jsonl.gz", b"\x1f\x8b", "is an archive"),
        ("unknown", b"\xff\xfe\x00", "neither text nor a picture"),
    ],
)
def test_what_may_not_be_committed_is_named(
    tmp_path: Path, name: str, content: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert main([str(path)]) == 1
    assert told in capsys.readouterr().out


def test_what_may_be_committed_passes_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.py").write_text("x = 1\n" * MOST_LINES)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "benchmarks").mkdir()
    result = tmp_path / "benchmarks" / "damoe_bench.parquet"
    result.write_bytes(b"PAR1")
    assert main([str(path) for path in [*tmp_path.glob("*.*"), result]]) == 0
    assert capsys.readouterr().out == ""
    result.write_bytes(b"x" * 5_000_001)
    assert main([str(result)]) == 1
    assert "more than 5,000,000" in capsys.readouterr().out
