"""The folder of an embedded Ray, which goes with the process that made it, however that ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A socket's path may have 107 bytes, so $TMPDIR, which can be long, is not used.
PARENT, PREFIX = Path("/tmp"), "mixrec-"
LOCK = "in-use"


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A fresh folder, gone after the context; those of processes that were killed are removed first."""
    for folder in PARENT.glob(f"{PREFIX}*"):
        _remove_if_abandoned(folder)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PARENT))
    # Locked before it has its name, or another process could take the folder for an abandoned one.
    with (folder / f"{LOCK}.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(lock.name).rename(folder / LOCK)
        try:
            yield folder
        finally:
            with suppress(OSError):  # what is left goes with the next one
                _remove(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """The system lets go of a lock when its process ends."""
    try:
        if folder.stat().st_uid != os.getuid():
            return
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
    except OSError:  # no lock in it, so it is none of ours; or in use; or gone meanwhile
        return


def _remove(folder: Path) -> None:
    """The lock last: small processes of a Ray that was killed write for a moment more, and then it is tried again."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
    if [path.name for path in folder.iterdir()] == [LOCK]:
        shutil.rmtree(folder, ignore_errors=True)
