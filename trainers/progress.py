"""How long work in the foreground tells what it is at."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes the name of a stage before it starts."""


def silent(_: str) -> None:
    """No progress."""
