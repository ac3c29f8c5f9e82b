"""What a report is made of: one search as the database holds it, and what its surrogate says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mixrec_automl.config import from_dict
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import (
    Observation,
    Promotion,
    Search,
    SearchState,
    Trial,
    TrialState,
    best_trial,
    by_design,
    scores,
)
from mixrec_automl.store.repository import Repository
from search_spaces.design import Design
from trainers.errors import UserError

if TYPE_CHECKING:
    from mixrec_automl.search.explanation import Explanation


@dataclass(frozen=True)
class Material:
    """Of one search."""

    search: Search
    config: SearchConfig
    trials: tuple[Trial, ...]
    """By number"""
    observations: tuple[Observation, ...]
    promotions: tuple[Promotion, ...]

    @classmethod
    def read(cls, repository: Repository, name: str) -> Material:
        """Raises UserError where there is no such search, or it is a study."""
        search = repository.search(name)
        if "study" in search.config:
            raise UserError(f"{name!r} is a study: `mixrec-automl study show {name}` compares its variants")
        trials = tuple(sorted(repository.trials(name), key=lambda trial: trial.number))
        observations, promotions = repository.observations(name), tuple(repository.promotions(name))
        return cls(search, from_dict(search.config, f"search {name}"), trials, observations, promotions)

    @cached_property
    def best(self) -> Trial | None:
        return best_trial(self.trials)

    @cached_property
    def completed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETED and trial.mrr is not None]

    @cached_property
    def scores_by_design(self) -> dict[Design, list[float]]:
        """MRR of the completed trainings of each design that has some"""
        return {design: scores(group) for design, group in by_design(self.completed).items()}

    @cached_property
    def seed_deviation(self) -> float:
        """Standard deviation of MRR between training seeds of one design"""
        return math.sqrt(training_seed_variance(self.completed))

    def curve(self, trial: Trial) -> list[tuple[int, float]]:
        """Epoch and validation MRR; of an epoch that several attempts reported, what the last one said."""
        seen = [one for one in self.observations if one.trial == trial.number and "validation_mrr" in one.metrics]
        told = {one.epoch: one.metrics["validation_mrr"] for one in sorted(seen, key=lambda one: one.attempt)}
        return sorted(told.items())

    @cached_property
    def explanation(self) -> Explanation | None:
        """Of what the surrogate makes of the bits; None of a search that has settings as well, or too few designs."""
        if self.config.search.settings or not self.completed:
            return None
        from mixrec_automl.search.explanation import explain  # BoTorch: seconds that reading alone need not cost

        return explain(self.trials, self.bits)

    @property
    def bits(self) -> int:
        return len(self.trials[0].design.architecture.bits)

    @property
    def is_noise_measured(self) -> bool:
        """Whether some design was trained twice; else the noise between training seeds is an assumption."""
        return any(len(own) > 1 for own in self.scores_by_design.values())

    @property
    def is_over(self) -> bool:
        return self.search.state is not SearchState.RUNNING
