"""What a search chooses: an architecture, and values for the settings of a training that it has declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.architecture import Architecture
from search_spaces.mixed import Value


@dataclass(frozen=True)
class Design:
    """Trainings of equal designs differ in nothing but their seed. `of` makes one with any settings."""

    architecture: Architecture
    settings: tuple[tuple[str, Value], ...] = ()
    """Key of the configuration and value, by key; of a search over architectures alone there are none"""

    @classmethod
    def of(cls, architecture: Architecture, settings: Mapping[str, Value]) -> Design:
        return cls(architecture, tuple(sorted(settings.items())))

    def __str__(self) -> str:
        """For people: ``010-111 model.bottleneck=32``."""
        return " ".join([str(self.architecture), *(f"{key}={shown(value)}" for key, value in self.settings)])


def shown(value: Value) -> str:
    """As a configuration has it, but for digits of a number that nobody reads.

    >>> shown(0.00123456), shown(False), shown(None)
    ('0.001235', 'false', 'empty')
    """
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
