"""How a search proposes: by PR, from what another search knows where it may, then the best once more."""

from __future__ import annotations

from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.search.confirmation import Confirmation, ConfirmingProposer, RankingProposer
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.mixed_proposer import MixedProposer
from mixrec_automl.search.transfer import transfer_to
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import WarmStart


def search_method(
    space: DesignSpace, budget: BudgetConfig, warm_start: WarmStart | None = None, cost: KnownCost | None = None
) -> ConfirmingProposer:
    """The search method of a whole search over `space`: through Ax where that is of bits alone.

    Args:
        cost: as `MixedProposer.cost`; of a space that has settings.

    Raises UserError as `transfer_to`.
    """
    transfer = transfer_to(space, budget.initial_trials, warm_start, cost)
    confirmation = Confirmation.within(budget.trials, budget.confirmation_share)
    inner: RankingProposer = MixedProposer(space, budget.initial_trials, transfer=transfer, cost=cost)
    if not space.settings:
        inner = AxProposer(space.architectures, budget.initial_trials, transfer=transfer)
    return ConfirmingProposer(inner, budget.trials, confirmation)
