"""One process for one folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainers.errors import UserError

LOCK = "in-use"


@contextmanager
def claim(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` within the context. The system lets go of it when the process ends, however that comes.

    A file system without locks has nobody refused.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is at it ({what}, in {folder}): wait for its end, or stop it") from error
        except OSError:  # such as ENOLCK
            pass
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a process holds `folder`; also where that cannot be known."""
    try:
        with (folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
