"""Configurations that come with the package, found by name: `mixrec-automl search scientific`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_preset(name: str) -> Path | None:
    """The file of preset `name`, or None."""
    return FOLDER / f"{name}.yaml" if name in preset_names() else None
