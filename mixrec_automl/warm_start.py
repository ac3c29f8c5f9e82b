"""What a new search takes over from another one of the same database: `search.warm_start`."""

from __future__ import annotations

from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import WarmStart, scores
from mixrec_automl.store.repository import Repository
from trainers.errors import UserError

LEAST_DESIGNS = 5
"""What a search tries by default before its surrogate is asked for anything."""


def warm_start_of(name: str, budget: BudgetConfig, repository: Repository) -> WarmStart | None:
    """For search `name`: what is recorded with it, or, where it is new, what is known by now of the search that
    `budget.warm_start` names; None where it names none.

    Raises:
        UserError: that search is this one, does not exist, is a study or has completed fewer than `LEAST_DESIGNS`
            designs.
    """
    if budget.warm_start is None:
        return None
    if budget.warm_start == name:
        raise UserError(f"search.warm_start: search {name!r} cannot start from itself")
    if name in {known.name for known in repository.searches()}:
        return repository.search(name).warm_start
    try:
        source = repository.search(budget.warm_start)
    except UserError as error:
        raise UserError(f"search.warm_start: {error}") from error
    if "study" in source.config:
        raise UserError(f"search.warm_start: {source.name!r} is a study, and no search over designs")
    trials = repository.trials(source.name)
    outcomes = tuple((trial.design, score) for trial in trials for score in scores([trial]))
    designs = len({design for design, _ in outcomes})
    if designs < LEAST_DESIGNS:
        raise UserError(
            f"search.warm_start: search {source.name!r} has {designs} completed designs, and {LEAST_DESIGNS} are needed"
        )
    return WarmStart(source.name, outcomes)
