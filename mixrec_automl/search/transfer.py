"""What a search takes over from another one on the same space: the best designs to begin with, and a prior of all.

The prior is the posterior mean of the other search's surrogate. It knows nothing of this search's data; `prior_gate.py`
decides by this search's own trials whether it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.encoding import Encoding, cost_of_rows, of_bits, of_settings
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.prior_gate import passes
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.surrogate import DesignSurrogate, weights_of
from mixrec_automl.search.threads import one_thread
from mixrec_automl.search.trial_surrogate import best_first, fit_trials
from mixrec_automl.store.records import Trial, WarmStart
from search_spaces.design import Design
from trainers.errors import UserError


class PosteriorMean:
    """The posterior mean of a fitted surrogate, as `PriorScores`: of thousands of designs at once, as no covariance
    between them is computed. On the scale of the standardised outcomes."""

    def __init__(self, surrogate: DesignSurrogate) -> None:
        """`surrogate` is not fitted any more from now on."""
        self._surrogate = surrogate.requires_grad_(False)
        self._observed = surrogate.train_inputs[0]
        _root, self._weights = weights_of(surrogate)

    def __call__(self, designs: Tensor) -> Tensor:
        covariance: Tensor = self._surrogate.covar_module(designs, self._observed).to_dense()
        mean: Tensor = self._surrogate.mean_module(designs) + covariance @ self._weights
        return mean


@dataclass(frozen=True)
class Transfer:
    """From another search."""

    first: tuple[Design, ...] = ()
    """Its best designs, the best first"""
    prior: PriorScores | None = None
    """Of rows of this search's encoding"""

    def prior_for(self, trials: Sequence[Trial], encoding: Encoding) -> PriorScores | None:
        """The prior where `trials`, those of this search, let it pass."""
        with one_thread():
            return self.prior if self.prior is not None and passes(self.prior, trials, encoding) else None


def transfer_to(
    space: DesignSpace, initial_trials: int, source: WarmStart | None, cost: KnownCost | None = None
) -> Transfer:
    """What a search over `space` takes over from `source`; nothing where there is none.

    Half of the `initial_trials` beside the fixed design are the source's best: they are what is most likely to be good
    here too, and with the quasi-random ones they spread over what the source takes for good and for ordinary, which
    shows soon whether it ranks the designs of this search. With a `cost` they are its best at several sizes.

    Raises:
        UserError: the source is of another space.
    """
    if source is None:
        return Transfer()
    for design, _ in source.outcomes:
        try:
            space.check(design)
        except ValueError as error:
            raise UserError(f"search.warm_start: search {source.search!r} is of another space: {error}") from error
    encoding = of_settings(space) if space.settings else of_bits(space.architectures.num_bits)
    trials = source.trials
    ranked = best_first(trials, encoding, cost=cost_of_rows(space, cost))
    best = [design for design in ranked if design != space.fixed_design]
    with one_thread():
        prior = PosteriorMean(fit_trials(trials, encoding))
    return Transfer(tuple(best[: (initial_trials - 1) // 2]), prior)
