"""What may be in the repository: short text files and small pictures; no data, no weights, no databases.

`python -m tests.contracts.committed_files FILE...` names what may not and exits 1; it is also a pre-commit hook.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

MOST_LINES = 400
MOST_BYTES = 200_000
PICTURES = {".gif", ".jpg", ".png"}
DATA = {".arrow", ".csv", ".db", ".feather", ".inter", ".item", ".jsonl", ".npy", ".npz", ".parquet", ".sqlite", ".tsv"}
WEIGHTS = {".bin", ".ckpt", ".gguf", ".h5", ".onnx", ".pkl", ".pt", ".pt2", ".pth", ".safetensors"}
RESULTS = {"benchmarks/damoe_bench.parquet": 5_000_000, "benchmarks/search_quality.jsonl": 2_000_000}
"""Measured by us, holding nothing of any data but reciprocal ranks without names; most bytes of each."""
WRITTEN = {"docs/commands.md", "docs/images/show.svg"}
"""By commands, as long as it takes."""
PACKED = {".gz", ".tar", ".whl", ".xz", ".zip", ".zst"}


def problem_of(path: Path) -> str | None:
    """Why `path` may not be committed, or None."""
    suffix = path.suffix.lower()
    most = RESULTS.get("/".join(path.parts[-2:]))
    if most is not None:
        size = path.stat().st_size
        return f"{size:,} bytes, more than {most:,}" if size > most else None
    for kind, suffixes in {"data": DATA, "weights": WEIGHTS, "an archive": PACKED}.items():
        if suffix in suffixes:
            return f"{suffix} is {kind}, which stays out of the repository"
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        return f"{len(content):,} bytes, more than {MOST_BYTES:,}"
    if suffix in PICTURES:
        return None
    try:
        lines = content.decode("utf-8").count("\n")
    except UnicodeDecodeError:
        return "neither text nor a picture"
    if lines > MOST_LINES and "/".join(path.parts[-2:]) not in WRITTEN and "/".join(path.parts[-3:]) not in WRITTEN:
        return f"{lines} lines, more than {MOST_LINES}: split it"
    return None


def main(paths: Iterable[str]) -> int:
    """Print a line for each file that may not be committed."""
    problems = [f"{path}: {problem}" for path in paths if (problem := problem_of(Path(path)))]
    print("\n".join(problems), end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
