"""What a report is made of: one search as the database holds it, and what its surrogate says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mixrec_automl.config import from_dict
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.pruning import curves_of
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import (
    Observation,
    Origin,
    Promotion,
    Search,
    SearchState,
    Trial,
    TrialState,
    best_trial,
    by_design,
    decisive,
    fixed_design,
    replicates_of,
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
            show = "study show" if "variants" in search.config["study"] else "show"
            raise UserError(f"{name!r} is a study, and reports are of searches: see `mixrec-automl {show} {name}`")
        trials = tuple(sorted(repository.trials(name), key=lambda trial: trial.number))
        observations, promotions = repository.observations(name), tuple(repository.promotions(name))
        return cls(search, from_dict(search.config, f"search {name}"), trials, observations, promotions)

    @cached_property
    def best(self) -> Trial | None:
        return best_trial(self.trials)

    @cached_property
    def best_scores(self) -> list[float]:
        """Of the trainings by which the winner was chosen; its best one alone would be flattered"""
        return [] if self.best is None else scores(replicates_of(self.best, decisive(self.trials)))

    @cached_property
    def promoted(self) -> tuple[Promotion, ...]:
        """Promotions of the winning design that have ended well; any trial can be promoted"""
        designs = {trial.number: trial.design for trial in self.trials}
        done = (one for one in self.promotions if one.state is SearchState.COMPLETED)
        return tuple(one for one in done if self.best is not None and designs.get(one.trial) == self.best.design)

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

    @cached_property
    def _curves(self) -> dict[int, dict[int, float]]:
        return curves_of(self.observations)

    def curve(self, trial: Trial) -> list[tuple[int, float]]:
        """Epoch and validation MRR; of an epoch that several attempts reported, what the last one said."""
        return sorted(self._curves.get(trial.number, {}).items())

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
    def is_fixed_confirmed(self) -> bool:
        """Whether the fixed design won the confirmation"""
        best = self.best
        return best is not None and best.origin is Origin.CONFIRMATION and best.design == fixed_design(self.trials)

    @property
    def is_over(self) -> bool:
        return self.search.state is not SearchState.RUNNING
