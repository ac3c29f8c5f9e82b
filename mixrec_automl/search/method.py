"""How a search proposes: designs by Ax and PR, then the confirmation of the best of them."""

from __future__ import annotations

from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.confirmation import Confirmation, ConfirmingProposer
from mixrec_automl.search_config import BudgetConfig
from search_spaces.damoe import DamoeSpace


def search_method(space: DamoeSpace, budget: BudgetConfig) -> ConfirmingProposer:
    """The search method of a whole search over `space`."""
    confirmation = Confirmation.within(budget.trials, budget.confirmation_share)
    return ConfirmingProposer(AxProposer(space, budget.initial_trials), budget.trials, confirmation)
