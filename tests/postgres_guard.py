"""Ends a server of `tests.postgres` and removes its folder, once the process that had started it is gone.

`python postgres_guard.py FOLDER` does so when its standard input ends, which even a killed process cannot prevent.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import time
from pathlib import Path

import psutil


def processes_of(postmaster: psutil.Process) -> list[psutil.Process]:
    """The server's processes; stops the postmaster, so that the list stays complete until it goes on."""
    postmaster.suspend()
    while postmaster.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        time.sleep(0.001)
    return [postmaster, *postmaster.children(recursive=True)]


def kill(postmaster: psutil.Process) -> None:
    """End all of the server at once, without a chance to tidy up."""
    # One by one: each of them is the leader of a process group of its own.
    try:
        processes = processes_of(postmaster)
    except psutil.NoSuchProcess:
        return
    for process in processes:
        process.kill()
    while any(_is_alive(process) for process in processes):
        time.sleep(0.001)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def clear(folder: Path) -> None:
    """Leave nothing of the server in `folder`: no process, no shared memory, no file."""
    data = folder / "data"
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    if lines:
        try:
            postmaster = psutil.Process(int(lines[0]))
            if Path(postmaster.cwd()) == data:  # and not another process that got the number since
                kill(postmaster)
        except psutil.NoSuchProcess:
            pass
    if len(lines) > 6:  # after a crash, the block that marks the folder as in use outlives all processes
        ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), 0, None)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    clear(Path(sys.argv[1]))
