"""How a search proposes: by Ax and PR, from what another search knows where it may, then the best once more."""

from __future__ import annotations

from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.confirmation import Confirmation, ConfirmingProposer
from mixrec_automl.search.transfer import transfer_to
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import WarmStart
from search_spaces.damoe import DamoeSpace


def search_method(space: DamoeSpace, budget: BudgetConfig, warm_start: WarmStart | None = None) -> ConfirmingProposer:
    """The search method of a whole search over `space`. Raises UserError as `transfer_to`."""
    transfer = transfer_to(space, budget.initial_trials, warm_start)
    confirmation = Confirmation.within(budget.trials, budget.confirmation_share)
    return ConfirmingProposer(AxProposer(space, budget.initial_trials, transfer=transfer), budget.trials, confirmation)
