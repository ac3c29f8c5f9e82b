"""What a study is: variants of one configuration, each trained with the same training seeds, tested once and compared.

The cells of the grid are run seed by seed, so that an interrupted study has whole comparisons of fewer seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count as naturals
from itertools import islice
from typing import Any, Literal

from mixrec_automl.config import from_dict, with_settings
from mixrec_automl.search_config import SearchConfig
from search_spaces.architecture import Architecture, Placement
from search_spaces.damoe import DamoeSpace
from trainers.baselines.config import BaselineName
from trainers.errors import UserError

Design = Literal["serial", "parallel", "searched"]
Settings = Mapping[str, str | float | int | bool]
NO_DESIGN = Architecture.uniform(Placement.SERIAL, 1)
"""What the trial of a model without DAMoE layers is recorded with; nothing reads it"""


@dataclass(frozen=True)
class Variant:
    """One row of a study's table."""

    name: str
    settings: Settings = field(default_factory=dict)
    """What differs from the study's configuration: dotted key -> value."""
    design: Design = "serial"
    """`serial` is the paper's fixed design (Variation 2); `searched` the winner of a search of its own."""
    baseline: BaselineName | None = None
    """The model that is trained instead of MixRec; the design is not read then."""


@dataclass(frozen=True)
class Study:
    """A question and the variants that answer it."""

    name: str
    question: str
    figure: str
    """Where the paper answers it."""
    reference: str
    """The variant that all others are compared with."""
    variants: tuple[Variant, ...]

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def without(self, names: Sequence[str]) -> Study:
        """Less some variants. Raises UserError for one that it has not, or that all others are compared with."""
        known = [variant.name for variant in self.variants]
        for name in names:
            if name == self.reference:
                raise UserError(f"{name} cannot be left out: the others are compared with it")
            if name not in known:
                raise UserError(f"{self.name} has no variant {name!r}: choose from {', '.join(known)}")
        return replace(self, variants=tuple(one for one in self.variants if one.name not in names))

    @property
    def needs_search(self) -> bool:
        return any(variant.design == "searched" for variant in self.variants)

    @property
    def needs_backbone(self) -> bool:
        return any(variant.baseline is None for variant in self.variants)


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    variant: str
    architecture: Architecture
    seed: int


@dataclass(frozen=True)
class StudyPlan:
    """A study on one configuration, resolved: what every variant trains, and with which seeds."""

    study: Study
    base: SearchConfig
    configs: Mapping[str, SearchConfig]
    architectures: Mapping[str, Architecture]
    seeds: tuple[int, ...]
    left_out: Mapping[str, str]
    """Variants that this backbone cannot have, and why."""

    @property
    def baselines(self) -> Mapping[str, BaselineName]:
        """The variants that are no MixRec, with their models."""
        return {one.name: one.baseline for one in self.study.variants if one.baseline and one.name in self.configs}

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(name, self.architectures[name], seed) for seed in self.seeds for name in self.configs)

    def as_dict(self) -> dict[str, Any]:
        """What the database keeps of it: the base's configuration, and the study beside it."""
        variants = {
            variant.name: {**asdict(variant), "architecture": str(self.architectures[variant.name])}
            for variant in self.study.variants
            if variant.name in self.configs
        }
        told = {"name": self.study.name, "reference": self.study.reference, "seeds": list(self.seeds)}
        return {**self.base.as_dict(), "study": {**told, "variants": variants}}


def training_seeds(base: SearchConfig, count: int) -> tuple[int, ...]:
    """1, 2, ...: none of them is the one with which a search chose a design, which would flatter its winner."""
    return tuple(islice((seed for seed in naturals(1) if seed != base.search.seed), count))


def plan_study(
    study: Study,
    base: SearchConfig,
    seeds: Sequence[int],
    layers: int,
    searched: Architecture | None = None,
    user_share: float = 1.0,
) -> StudyPlan:
    """Resolve every variant of `study` on `base`.

    The trainings take as many epochs as a promotion's, and not the search's share of the users but `user_share`.

    Args:
        layers: of the backbone.
        searched: the winner of the search that `study.needs_search`.

    Raises:
        UserError: a variant is no valid configuration, or the reference cannot be trained on this backbone.
    """
    epochs = base.promotion.epochs or base.training.epochs
    base = replace(
        base,
        training=replace(base.training, epochs=epochs),
        search=replace(base.search, user_share=user_share),
    )
    configs: dict[str, SearchConfig] = {}
    architectures: dict[str, Architecture] = {}
    left_out: dict[str, str] = {}
    for variant in study.variants:
        step = int(variant.settings.get("model.replacement_frequency", base.model.replacement_frequency))
        had = int(variant.settings.get("backbone.layers", layers))
        if step > had and variant.baseline is None:
            left_out[variant.name] = f"the backbone has {had} layers, so none is a multiple of {step}"
            continue
        config = with_settings(base, variant.settings, f"variant {variant.name!r} of study {study.name}")
        if variant.baseline is not None:
            configs[variant.name], architectures[variant.name] = config, NO_DESIGN
            continue
        if variant.settings and config == base and not study.variant(study.reference).settings:
            left_out[variant.name] = "the configuration is so anyway"
            continue
        depth = len(DamoeSpace(had, step).damoe_layers)
        configs[variant.name] = config
        if variant.design == "searched":
            if searched is None:
                raise ValueError(f"study {study.name} needs the winner of a search")
            architectures[variant.name] = searched
        else:
            placement = Placement.PARALLEL if variant.design == "parallel" else Placement.SERIAL
            architectures[variant.name] = Architecture.uniform(placement, depth)
    if study.reference not in configs:
        raise UserError(f"study {study.name} cannot run: {left_out[study.reference]}")
    trials = len(configs) * len(seeds)
    base = replace(base, search=replace(base.search, trials=trials))
    return StudyPlan(study, base, configs, architectures, tuple(seeds), left_out)


def base_of(stored: Mapping[str, Any], where: str) -> SearchConfig:
    """The configuration in what `StudyPlan.as_dict` gave. Raises ConfigError."""
    return from_dict({key: value for key, value in stored.items() if key != "study"}, where)
