"""What is derived from prepared data at a price, kept beside the data it belongs to and memory-mapped.

Several processes may ask for one thing at once. They take turns where the file system knows locks, so that only the
first one computes; where it does not, each computes into a place of its own. The rename is atomic either way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def cached_array(path: Path, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Memory-map `path`, computing and writing it first where it is not there."""
    if not path.exists():
        with _taking_turns(path.parent):
            if not path.exists():
                _write_array(path, compute())
    loaded: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return loaded


def cached_folder(path: Path, write: Callable[[Path], None]) -> Path:
    """`path`, a folder that `write` fills first where it is not there: it is given an empty folder beside it."""
    if not path.is_dir():
        with _taking_turns(path.parent):
            if not path.is_dir():
                _write_folder(path, write)
    return path


def _write_array(path: Path, values: NDArray[np.float32]) -> None:
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, values)
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def _write_folder(path: Path, write: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        made = Path(scratch) / path.name
        made.mkdir()
        write(made)
        try:
            made.rename(path)
        except OSError:
            if not path.is_dir():
                raise


@contextlib.contextmanager
def _taking_turns(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which leaves no file behind and ends with its holder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # no locks here, as on some network file systems
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
