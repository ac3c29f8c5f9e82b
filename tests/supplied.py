"""The supplied Amazon subsets, which are never part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def supplied_folder(name: str) -> Path:
    """Folder `name` of the supplied data; skips the calling test (mark it `supplied_data`) where it is missing."""
    root = Path(os.environ.get("MIXREC_TEST_DATA") or ROOT.parent / "shared" / "data")
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"supplied data missing: there is no folder {folder} (MIXREC_TEST_DATA names its parent)")
    return folder
