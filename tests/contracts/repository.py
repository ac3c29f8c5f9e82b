"""Where the repository lies and which files it is made of."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mixrec_automl", "trainers", "search_spaces")
DOCUMENTS = tuple(sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]))


def tracked_files() -> list[Path]:
    """Files that git has, or would add; those deleted in the working tree left out.

    Raises:
        FileNotFoundError, CalledProcessError: no git, or no clone.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def sources(*packages: str) -> list[Path]:
    """Python files of `packages`, all three where none is named."""
    return sorted(path for package in packages or PACKAGES for path in (ROOT / package).rglob("*.py"))
