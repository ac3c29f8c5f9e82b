"""The search over architectures and settings: the same method as over architectures alone, without Ax.

What Ax gives `ax_proposer.py` is quasi-random designs; these are those of `suggestion.py`, and so are PR, surrogate,
acquisition function and knowledge gradient, which both share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from botorch.utils.sampling import manual_seed

from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.designs import Made, Seen, next_proposal
from mixrec_automl.search.encoding import Encoding, cost_of_rows, of_settings, points_of
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search.suggestion import Evidence, Observed, quasi_random, relaxation_of
from mixrec_automl.search.transfer import Transfer
from mixrec_automl.search.trial_surrogate import LEAST_COMPLETED, best_first
from mixrec_automl.store.records import Origin, Trial, scores
from search_spaces.design import Design


@dataclass(frozen=True)
class MixedProposer:
    """Proposes designs of `space`, which has settings; see `Proposer`."""

    space: DesignSpace
    initial_trials: int = 5
    """Designs, in any state, before the surrogate takes over: the fixed one and quasi-random ones."""
    ascent: Ascent = field(default_factory=Ascent)
    transfer: Transfer = field(default_factory=Transfer)
    """As `AxProposer.transfer`"""
    cost: KnownCost | None = None
    """Of the settings of a design; with it, the best designs at every cost are looked for"""

    @property
    def fixed_design(self) -> Design:
        return self.space.fixed_design

    def ranking(self, trials: Sequence[Trial]) -> list[Design]:
        """See `best_first`."""
        prior = self.transfer.prior_for(trials, self._encoding)
        return best_first(trials, self._encoding, prior, cost_of_rows(self.space, self.cost))

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        """See `Proposer.propose`."""

        def make(seen: Seen) -> Made:
            completed = sum(bool(scores(group)) for group in seen.values())
            if len(seen) < self.initial_trials or completed < LEAST_COMPLETED:
                mixed, taken = self.space.mixed, points_of(self.space, list(seen))
                point = quasi_random(mixed, relaxation_of(mixed), taken, seed)
                return self.space.design(mixed.setting(point.tolist())), Origin.SOBOL, ""
            history = [
                Observed(self.space.setting(trial.design), trial.mrr, is_pending=not trial.state.is_final)
                for group in seen.values()
                for trial in group
            ]
            own_seed = int(np.random.SeedSequence([seed, len(seen)]).generate_state(1)[0])
            prior = self.transfer.prior_for(trials, self._encoding)
            evidence = Evidence(self.space.mixed, history, training_seed_variance(trials), prior, self.cost)
            with manual_seed(own_seed):
                point = next(evidence.points(own_seed, initial=0, ascent=self.ascent))
            # One that is to be trained again is the design itself: a level gives its number back but to the last bit.
            known = list(seen)
            same = (points_of(self.space, known) == point).all(dim=1).nonzero()
            design = known[int(same[0])] if len(same) else self.space.design(self.space.mixed.setting(point.tolist()))
            return design, Origin.PROBABILISTIC_REPARAMETERIZATION, evidence.surrogate.covar_module.name

        return next_proposal(self.space, self.initial_trials, trials, make, self.transfer.first)

    @cached_property
    def _encoding(self) -> Encoding:
        return of_settings(self.space)
