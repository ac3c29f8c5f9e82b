"""Which file system a folder lies on, as far as the operating system tells."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|ceph|lustre|gpfs|beegfs|afs|ncpfs|glusterfs|fuse\.(glusterfs|sshfs|ceph\S*)"
)


def network_file_system(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of network file system that holds `folder`; None for a local one, or where nothing is known of it."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:  # no /proc: another operating system than Linux
        return None
    kinds = {}
    for line in lines:
        _device, place, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place))] = kind
    path = folder.resolve()
    kind = next((kinds[parent] for parent in (path, *path.parents) if parent in kinds), "")
    return kind if NETWORK.fullmatch(kind) else None
