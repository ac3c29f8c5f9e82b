"""The pinned environment of RecBole, made where it is missing: its versions and the project's exclude each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainers.errors import UserError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, which holds what `requirements.txt` says.

    Raises:
        UserError: pip could not install it; its own words stand in `folder / "pip.log"`.
    """
    python, stamp = folder / "bin/python", folder / "installed.txt"
    wanted = REQUIREMENTS.read_text("utf-8")
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"installing RecBole into {folder}", flush=True)
    log = folder / "pip.log"
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        with log.open("w") as lines:
            install = [str(python), "-m", "pip", "install", "--requirement", str(REQUIREMENTS)]
            subprocess.run(install, check=True, stdout=lines, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        raise UserError(f"RecBole's environment cannot be installed (status {error.returncode}): see {log}") from None
    stamp.write_text(wanted, "utf-8")
    return python
