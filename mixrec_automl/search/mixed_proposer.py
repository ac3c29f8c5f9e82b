"""The search over architectures and settings: the same method as over architectures alone, without Ax.

What Ax gives `ax_proposer.py` is quasi-random designs; these are those of `suggestion.py`, and so are PR, surrogate,
acquisition function and knowledge gradient, which both share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.designs import LEAST_COMPLETED, Made, Seen, best_first, next_proposal
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.suggestion import Observed, quasi_random, relaxation_of, suggest
from mixrec_automl.store.records import Origin, Trial, scores
from search_spaces.design import Design


@dataclass(frozen=True)
class MixedProposer:
    """Proposes designs of `space`, which has settings; see `Proposer`."""

    space: DesignSpace
    initial_trials: int = 5
    """Designs, in any state, before the surrogate takes over: the fixed one and quasi-random ones."""
    ascent: Ascent = field(default_factory=Ascent)

    @property
    def fixed_design(self) -> Design:
        return self.space.fixed_design

    def ranking(self, trials: Sequence[Trial]) -> list[Design]:
        """See `best_first`."""
        return best_first(trials, self._relaxation, self._relaxation.columns, self._points)

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        """See `Proposer.propose`."""

        def make(seen: Seen) -> Made:
            completed = sum(bool(scores(group)) for group in seen.values())
            if len(seen) < self.initial_trials or completed < LEAST_COMPLETED:
                point = quasi_random(self.space.mixed, self._relaxation, self._points(list(seen)), seed)
                return self.space.design(self.space.mixed.setting(point.tolist())), Origin.SOBOL, ""
            history = [
                Observed(self.space.setting(trial.design), trial.mrr, is_pending=not trial.state.is_final)
                for group in seen.values()
                for trial in group
            ]
            own_seed = int(np.random.SeedSequence([seed, len(seen)]).generate_state(1)[0])
            noise_variance = training_seed_variance(trials)
            found = suggest(
                self.space.mixed, history, seed=own_seed, initial=0, noise_variance=noise_variance, ascent=self.ascent
            )
            return self.space.design(found), Origin.PROBABILISTIC_REPARAMETERIZATION, ""

        return next_proposal(self.space, self.initial_trials, trials, make)

    @cached_property
    def _relaxation(self) -> Relaxation:
        return relaxation_of(self.space.mixed)

    def _points(self, designs: Sequence[Design]) -> Tensor:
        rows = [self.space.mixed.levels(self.space.setting(design)) for design in designs]
        return torch.tensor(rows, dtype=torch.float64)
