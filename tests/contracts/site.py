"""The documents as a site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.contracts.repository import ROOT


def build_site(folder: Path) -> None:
    """Strictly: a page that the navigation lacks, or a link or heading that is not there, ends it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
