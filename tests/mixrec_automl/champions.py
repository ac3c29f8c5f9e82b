"""Champions that come without a gate, as of another promotion."""

from __future__ import annotations

from mixrec_automl.registry import ModelVersion, Registry


def crown(registry: Registry, version: ModelVersion) -> None:
    """Make `version` the champion, whoever is it now."""
    assert registry.replace_champion(registry.champion(version.name), version)
