"""What the documents tell a reader to type, and a home to type it in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

from tests.end_to_end.shell import Shell

PROGRAMS = ("mixrec-automl", "python", "make", "curl", "export")


def typed_in(document: Path) -> list[str]:
    """The commands of its blocks, in order: what follows `$`, and all of a block that begins with a program's name."""
    found = []
    for token in MarkdownIt().parse(document.read_text("utf-8")):
        if token.type == "code_block" or (token.type == "fence" and token.info in {"", "bash"}):
            lines = re.sub(r"\\\n\s*", "", token.content).splitlines()
            prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += prompted or (lines if lines[0].split()[0] in PROGRAMS else [])
    return found


def type_in(folder: Path, *command: str) -> str:
    """What the command prints, in a home of its own, where `mixrec-automl` is on the path."""
    environment = Shell(folder).environment
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
