"""How a search proposes: designs by PR, then the confirmation of the best of them."""

from __future__ import annotations

from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.confirmation import Confirmation, ConfirmingProposer, RankingProposer
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.mixed_proposer import MixedProposer
from mixrec_automl.search_config import BudgetConfig


def search_method(space: DesignSpace, budget: BudgetConfig) -> ConfirmingProposer:
    """The search method of a whole search over `space`: through Ax where that is of bits alone."""
    confirmation = Confirmation.within(budget.trials, budget.confirmation_share)
    inner: RankingProposer = MixedProposer(space, budget.initial_trials)
    if not space.settings:
        inner = AxProposer(space.architectures, budget.initial_trials)
    return ConfirmingProposer(inner, budget.trials, confirmation)
