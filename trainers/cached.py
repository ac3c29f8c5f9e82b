"""Arrays that cost a pass of the backbone, kept beside the data they belong to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def cached_array(path: Path, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Memory-map `path`, computing and writing it first where it is not there.

    Several processes may do so at once: each writes a file of its own, and the rename is atomic.
    """
    if not path.exists():
        values = compute()
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.save(file, values)
            Path(scratch).replace(path)
        finally:
            Path(scratch).unlink(missing_ok=True)
    loaded: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return loaded
