"""A study's proposals: the next cell of its grid that no trial has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixrec_automl.search.proposer import Proposal, SpaceExhausted
from mixrec_automl.store.records import Origin, Trial
from mixrec_automl.studies.study import Cell
from search_spaces.design import Design


@dataclass(frozen=True)
class GridProposer:
    """A `Proposer` that walks through `cells` in their order."""

    cells: tuple[Cell, ...]

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:  # noqa: ARG002 - the grid is fixed
        had = {(trial.variant, trial.seed) for trial in trials}
        for cell in self.cells:
            if (cell.variant, cell.seed) not in had:
                return Proposal(Design(cell.architecture), Origin.STUDY, 0.0, variant=cell.variant, seeds=(cell.seed,))
        raise SpaceExhausted
