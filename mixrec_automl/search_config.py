"""The configuration of a search: one YAML file plus `--set` overrides, checked whole before anything starts.

The sections `data`, `backbone`, `model` and `training` are those of `trainers.config`; the others say how the search
spends its budget and on which machines. The field text under each field is its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from search_spaces.mixed import Value
from trainers.baselines.config import BaselinesConfig
from trainers.config import (
    STRICT,
    BackboneConfig,
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    PositiveInt,
    Share,
    TrainingConfig,
)


@dataclass(frozen=True, config=STRICT)
class PruningConfig:
    """Whether trials end early whose learning curve promises little. A pruned trial has no score, so the surrogate
    learns nothing from it, and its design does not come back. Studies and promotions never prune."""

    rule: Literal["none", "median", "halving"] = "none"
    """`median`: a trial ends whose best validation MRR so far is below the median of the running averages of all
    completed trials at that epoch (Vizier); `halving`: one that is not among the best 1/eta of those that have reached
    the same rung (ASHA). It ends after the epoch that it is then in. The fixed design is never pruned."""
    min_epochs: PositiveInt = 1
    """The first epoch after which a trial may be given up; of `halving` the first rung."""
    eta: Annotated[int, Field(ge=2)] = 3
    """Of `halving`: the share that goes on is 1/eta, and each rung is eta times as many epochs as the one before."""
    min_trials: Annotated[int, Field(ge=10)] = 10
    """Nothing is pruned before so many designs are completed."""
    min_rank_correlation: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """At an epoch nothing is pruned unless the rank correlation between the best MRR up to it and the final one, over
    completed designs, is surely (95 %) above this."""


@dataclass(frozen=True, config=STRICT)
class RangeConfig:
    """Of a number that a search chooses."""

    low: int | float
    high: int | float
    scale: Literal["linear", "log"] = "linear"
    """`log`: equal ratios are equally far apart."""


Values = list[Value]


@dataclass(frozen=True, config=STRICT)
class BudgetConfig:
    """How many designs are tried, and on how much data (paper, 2.3.3 and Table 3)."""

    trials: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Trainings in all, those of the confirmation included; the paper runs 30."""
    initial_trials: PositiveInt = 5
    """The first designs, which ask no surrogate: the all-serial one, then quasi-random ones (ruling 11)."""
    user_share: Share = 1.0
    """b: share of the users that forms Data_BO, drawn once per search."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of everything random: Data_BO, proposals and trainings."""
    max_failure_rate: Share = 0.5
    """The search gives up once more than this share of its ended trials has failed."""
    confirmation_share: Annotated[float, Field(ge=0, le=0.5)] = 1 / 3
    """Share of `trials` that is kept for training the best designs, and the all-serial one, again with new seeds; the
    best of these trainings is the winner. n trials give about sqrt(n) designs and seeds; below four there are none."""
    max_attempts: PositiveInt = 3
    """A trial whose worker dies or hangs is tried again, from its last checkpoint, until it was lost this often."""
    hang_seconds: Annotated[float, Field(gt=0)] | None = None
    """A trial that a worker has begun and that reports no epoch for this long is taken to hang: it is killed and tried
    again. The first epoch includes loading data and backbone. When absent, ten times the longest epoch of the search
    so far, ten minutes at least, and six hours before its first epoch."""
    settings: dict[str, Values | RangeConfig] = field(default_factory=dict)
    """What designs differ in besides the placement of adapters: for a key of `model` or `training` the list of its
    values, of which increasing numbers have an order, or `{low: , high: }` of a number, with `scale: log` where equal
    ratios are equally far apart. The first design has the configuration's own values, or those nearest to them: the
    closest number, and of a list without an order the first value."""
    second_objective: Literal["trainable_parameters"] | None = None
    """What designs are to have little of, beside a high MRR: the search then looks for the best MRR at every number of
    trainable parameters, and `show` has the Pareto front. It needs `settings` that change that number, such as
    `model.bottleneck`; the placement of adapters does not."""
    pruning: PruningConfig = PruningConfig()
    warm_start: str | None = None
    """Name of another search on the same space, on other data for instance, that this one learns from: its best designs
    take the place of half of the quasi-random ones, and its predictions are the surrogate's mean as long as they rank
    this search's own designs better than chance. Its trials are read as this search begins, and kept with it."""

    @model_validator(mode="after")
    def _second_objective_fits_the_rest(self) -> BudgetConfig:
        if self.second_objective is None:
            return self
        if not any(key.startswith("model.") for key in self.settings):
            raise ValueError(
                "second_objective is the same for all designs: declare settings that change it, such as "
                "settings: {model.bottleneck: [16, 32, 64]}"
            )
        if self.pruning.rule != "none":
            raise ValueError(
                "pruning judges by MRR alone and would end the small models of search.second_objective: set "
                "pruning.rule to none, or leave the second objective out"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class ClusterConfig:
    """What the search asks of the machines."""

    slots: PositiveInt = 1
    """Trials that train at the same time; at most, on a Ray cluster that several searches share."""
    workers_per_trial: PositiveInt = 1
    """Data-parallel processes of one trial; the global batch is split among them."""
    cpus_per_worker: PositiveInt = 1
    """Processor cores, and threads, of each process."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of each process; a fraction lets trials share a GPU."""
    shard_backbone: bool = False
    """Give each worker of a trial a part of every frozen layer (FSDP2), for a backbone that does not fit one GPU."""
    trials_per_process: PositiveInt = 50
    """Trials that a process trains before another takes its place, so that no leak lasts; 1: each gets its own."""
    priority: int = 0
    """Among searches that share a Ray cluster: one of a higher priority is served first, those of the same share
    alike."""

    @model_validator(mode="after")
    def _workers_that_can_talk(self) -> ClusterConfig:
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError("gpus_per_worker is a fraction of one GPU, or a whole number of them")
        if self.workers_per_trial > 1 and self.gpus_per_worker % 1:
            raise ValueError(
                "a fraction of a GPU needs workers_per_trial: 1, for NCCL refuses two processes of a trial on one GPU"
            )
        if self.shard_backbone and self.workers_per_trial == 1:
            raise ValueError("shard_backbone divides the backbone among processes: set workers_per_trial to 2 or more")
        return self


@dataclass(frozen=True, config=STRICT)
class PromotionConfig:
    """Training of the winner on all users."""

    epochs: PositiveInt | None = None
    """Epochs of this training; those of `training` when absent."""
    workers: PositiveInt = 1
    """Data-parallel processes."""
    fewest_workers: PositiveInt | None = None
    """Processes with which it begins or goes on where machines are missing, until there is room for more; `workers`
    when absent."""

    @model_validator(mode="after")
    def _no_more_than_all(self) -> PromotionConfig:
        if self.fewest_workers is not None and self.fewest_workers > self.workers:
            raise ValueError(f"fewest_workers is {self.fewest_workers}, and workers {self.workers}: raise workers")
        return self


@dataclass(frozen=True, config=STRICT)
class SearchConfig:
    """A whole search; also the form in which the database keeps it."""

    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    search: BudgetConfig = BudgetConfig()
    cluster: ClusterConfig = ClusterConfig()
    promotion: PromotionConfig = PromotionConfig()
    baselines: BaselinesConfig = BaselinesConfig()

    @model_validator(mode="after")
    def _at_least_one_damoe_layer(self) -> SearchConfig:
        layers, step = self.backbone.layers, self.model.replacement_frequency
        if layers is not None and step > layers:
            raise ValueError(
                f"model.replacement_frequency is {step}, but backbone.layers is {layers}: no layer would be replaced"
            )
        return self

    @property
    def finetune(self) -> FinetuneConfig:
        """What one training needs to know."""
        return FinetuneConfig(data=self.data, backbone=self.backbone, model=self.model, training=self.training)

    def as_dict(self) -> Mapping[str, Any]:
        """Plain nested dictionaries, every default filled in; `config.from_dict` reads them back."""
        return asdict(self)


def without_settings(config: SearchConfig) -> SearchConfig:
    """`config` with no settings that are searched for, and so without a second objective."""
    return replace(config, search=replace(config.search, settings={}, second_objective=None))


def for_a_study(config: SearchConfig) -> SearchConfig:
    """`config` with every trial trained to its end, and no settings that are searched for."""
    bare = without_settings(config)
    return replace(bare, search=replace(bare.search, pruning=PruningConfig()))
