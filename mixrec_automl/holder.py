"""Who holds the lease of a search: words for people, and an identity by which a dead holder is recognised.

A lease of a process that was killed need not be waited for where its death can be seen: on the same boot of the same
machine, in the same process namespace. Everywhere else the lease runs out by itself.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
OWNER = "MIXREC_OWNER"


@dataclass(frozen=True)
class Holder:
    """A process that runs a search, once."""

    name: str
    """As in "ada@laptop, process 4711" """
    process: str
    """Machine, process and start time, with a random tail that tells apart two searches of one process"""


def this_process() -> Holder:
    """A new identity of the calling process."""
    pid = os.getpid()
    where = f"{_machine()} {pid} {_start_of(pid) or '?'}"
    return Holder(f"{_user()}@{socket.gethostname()}, process {pid}", f"{where} {secrets.token_hex(8)}")


def owner() -> str:
    """Whose a search is that this process starts: `$MIXREC_OWNER`, else the user of the operating system.

    `submit` sets that variable for the cluster, where all searches run as one user. It is a name, and proves nothing.
    """
    return os.environ.get(OWNER) or _user()


def is_dead(process: str) -> bool:
    """Whether the process of a `Holder` is known to be gone; False where that cannot be seen from here."""
    try:
        machine, pid, start, _tail = process.split(" ")
    except ValueError:
        return False
    if machine != _machine() or start == "?":
        return False
    return _start_of(int(pid)) != start and not _is_hidden(int(pid))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user without a name
        return str(os.getuid())


def _is_hidden(pid: int) -> bool:
    """Whether process `pid` may be there though /proc shows nothing of it, as where that is mounted with `hidepid`."""
    try:
        (PROC / str(pid) / "stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return False


def _machine() -> str:
    """This boot and its process namespace; a random word, equal to no other, where they cannot be told."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return secrets.token_hex(8)


def _start_of(pid: int) -> str | None:
    """When process `pid` began, in clock ticks since boot; None where there is none, or only its remains."""
    try:
        # The second field, a name in brackets, may hold anything; the third is the state, the 22nd the start.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
