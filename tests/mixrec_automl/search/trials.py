"""Trials for the tests of the search."""

from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import Architecture


def trial(
    number: int,
    design: str | Architecture,
    mrr: float | None = None,
    state: TrialState = TrialState.COMPLETED,
    origin: Origin = Origin.SOBOL,
    seed: int = 0,
) -> Trial:
    architecture = design if isinstance(design, Architecture) else Architecture.parse(design)
    return Trial(number, architecture, seed, origin, state, attempt=1, proposal_seconds=0.0, mrr=mrr)
