"""The space of a search's designs: a bit for each adapter that can be moved, and the settings that it has declared.

Settings decide which bits there are. A layer that `model.replacement_frequency` leaves as it is has no adapters, and
only a bottleneck has a place (`trainers/model/adapter.py`): bits without an effect are serial, so that designs which
differ in nothing else are one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from mixrec_automl.search_config import SearchConfig
from mixrec_automl.searched_settings import parameters_of
from search_spaces.architecture import SITES, Architecture, Placement
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design
from search_spaces.mixed import Categorical, Condition, Integer, MixedSpace, Ordinal, Parameter, Setting, Value
from trainers.errors import UserError

FREQUENCY = "model.replacement_frequency"
KINDS = tuple(f"model.{site.replace(' ', '_')}" for site in SITES)
MOVABLE = "bottleneck"
"""The kind of adapter that reads its placement"""


@dataclass(frozen=True)
class DesignSpace:
    """All designs that a search may try; without settings all of `architectures`, whatever is trained at its sites."""

    architectures: DamoeSpace
    """As the configuration has it"""
    settings: tuple[Parameter, ...] = ()
    """Named by their keys of the configuration"""
    own: Mapping[str, Value] = field(default_factory=dict)
    """The configuration's own value of each of them, and of those of `KINDS` that do not vary"""

    @classmethod
    def of(cls, config: SearchConfig, backbone_layers: int) -> DesignSpace:
        """Raises UserError where a replacement frequency would leave no layer to replace."""
        settings = parameters_of(config.search.settings)
        for one in settings:
            frequencies = values_of(one) if one.name == FREQUENCY else (1,)
            if frequencies is None or not all(1 <= int(value or 0) <= backbone_layers for value in frequencies):
                raise UserError(
                    f"search.settings: {FREQUENCY} must have few values, of at most the {backbone_layers} layers that "
                    "the backbone has"
                )
        own: dict[str, Value] = {}
        for key in {*KINDS, *(one.name for one in settings)}:
            value: Any = config
            for part in key.split("."):
                value = getattr(value, part)
            own[key] = value
        return cls(DamoeSpace(backbone_layers, config.model.replacement_frequency), settings, own)

    @property
    def fixed_design(self) -> Design:
        """All-serial, each setting at its value nearest to the configuration's own."""
        settings = {one.name: one.nearest(self.own[one.name]) for one in self.settings}
        return Design.of(Architecture.uniform(Placement.SERIAL, len(self._layers(settings))), settings)

    @property
    def size(self) -> float:
        """Number of designs; infinite where a setting is continuous."""
        if not self.settings:
            return self.architectures.size
        deciding = {key: values for key, values in self._possible.items() if key in (FREQUENCY, *KINDS) and values}
        architectures = 0
        for values in product(*deciding.values()):
            settings = dict(zip(deciding, values, strict=True))
            movable = sum(self._kind(key, settings) == MOVABLE for key in KINDS)
            architectures += 1 << (len(self._layers(settings)) * movable)
        others = [values for key, values in self._possible.items() if key not in deciding]
        return architectures * math.prod(math.inf if values is None else len(values) for values in others)

    def __str__(self) -> str:
        """For people: ``12 bits, 4,096 designs``."""
        bits = f"{len(self._bits) if self.settings else self.architectures.num_bits} bits"
        count = len(self.settings)
        own = f" and {count} setting{'' if count == 1 else 's'}" if count else ""
        return f"{bits}{own}, {'any number of' if math.isinf(self.size) else f'{self.size:,}'} designs"

    @cached_property
    def mixed(self) -> MixedSpace:
        """The same for a search method: a parameter for each bit that counts under any settings, then the settings."""
        frequencies = self._possible.get(FREQUENCY) or (self.architectures.replacement_frequency,)
        conditions = []
        for name, (layer, key) in self._bits.items():
            having = tuple(value for value in frequencies if layer in self._layers({FREQUENCY: value}))
            if having != frequencies:
                conditions.append(Condition(name, FREQUENCY, having))
            if key in self._possible:
                conditions.append(Condition(name, key, (MOVABLE,)))
        bits = (Categorical(name, (0, 1)) for name in self._bits)
        return MixedSpace((*bits, *self.settings), conditions=tuple(conditions))

    def design(self, setting: Setting) -> Design:
        """What a setting of `mixed` means."""
        settings = {one.name: setting[one.name] for one in self.settings}
        bits = [
            int(setting[_name(layer, key)] or 0) if self._kind(key, settings) == MOVABLE else 0
            for layer in self._layers(settings)
            for key in KINDS
        ]
        return Design.of(Architecture.from_bits(bits), settings)

    def setting(self, design: Design) -> dict[str, Value]:
        """Inverse of `design`; a bit that does not count is 0."""
        settings = dict(design.settings)
        names = [_name(layer, key) for layer in self._layers(settings) for key in KINDS]
        bits: dict[str, Value] = dict(zip(names, design.architecture.bits, strict=True))
        return {name: bits.get(name, 0) for name in self._bits} | settings

    def check(self, design: Design) -> None:
        """Raises ValueError where `design` has other settings than this space, or another number of DAMoE layers."""
        settings = dict(design.settings)
        if settings.keys() != self._possible.keys():
            raise ValueError(f"{design} should have values for {list(self._possible)}")
        for one in self.settings:
            one.level(settings[one.name])
        self._of(settings).check(design.architecture)

    @cached_property
    def _possible(self) -> Mapping[str, tuple[Value, ...] | None]:
        return {one.name: values_of(one) for one in self.settings}

    @cached_property
    def _bits(self) -> Mapping[str, tuple[int, str]]:
        """By name, the layer and the key of the kind of each bit that counts under any settings."""
        frequencies = self._possible.get(FREQUENCY) or (self.architectures.replacement_frequency,)
        layers = sorted({layer for value in frequencies for layer in self._layers({FREQUENCY: value})})
        keys = [key for key in KINDS if MOVABLE in (self._possible.get(key) or (self._kind(key, {}),))]
        return {_name(layer, key): (layer, key) for layer in layers for key in keys}

    def _of(self, settings: Mapping[str, Value]) -> DamoeSpace:
        frequency = settings.get(FREQUENCY, self.architectures.replacement_frequency)
        return DamoeSpace(self.architectures.backbone_layers, int(frequency or 0))

    def _layers(self, settings: Mapping[str, Value]) -> tuple[int, ...]:
        return self._of(settings).damoe_layers

    def _kind(self, key: str, settings: Mapping[str, Value]) -> Value:
        return settings.get(key, self.own.get(key, MOVABLE))


def _name(layer: int, key: str) -> str:
    """Of a bit."""
    return f"{key} of layer {layer}"


def values_of(parameter: Parameter) -> tuple[Value, ...] | None:
    """All that a parameter can have; None where it is continuous to a search method."""
    if isinstance(parameter, Categorical | Ordinal):
        return parameter.values
    if isinstance(parameter, Integer) and not parameter.is_dense:
        return tuple(range(parameter.low, parameter.high + 1, parameter.step))
    return None
