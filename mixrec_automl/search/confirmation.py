"""The end of a search: its best designs are trained again, with new seeds, before one of them is declared the winner.

The best of many noisy scores is flattered by its luck (the winner's curse). Trainings that were not chosen by are not,
so the search keeps a part of its budget for them. The all-serial design is among those confirmed, with the same seeds:
the winner's advantage over it is then a paired difference that nothing was selected by, but for the choice among the
few that were confirmed, which `advantage.py` corrects for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Protocol

from mixrec_automl.search.proposer import Proposal, Proposer, SpaceExhausted
from mixrec_automl.store.records import Origin, Trial
from search_spaces.design import Design

FEWEST = 4
"""Trials of a confirmation: two designs with two seeds each."""


@dataclass(frozen=True)
class Confirmation:
    """How many designs are confirmed, the all-serial one included, and with how many seeds each."""

    designs: int
    seeds: int

    @property
    def trials(self) -> int:
        return self.designs * self.seeds

    @classmethod
    def within(cls, trials: int, share: float) -> Confirmation:
        """As many designs as seeds, or a few more, out of `share` of a search's `trials`; none below `FEWEST`.

        >>> Confirmation.within(30, 1 / 3)
        Confirmation(designs=3, seeds=3)
        """
        kept = int(trials * share + 1e-9)
        if kept < FEWEST:
            return cls(0, 0)
        return cls(kept // isqrt(kept), isqrt(kept))


class RankingProposer(Proposer, Protocol):
    """A search method that can also say which designs it takes to be the best."""

    @property
    def fixed_design(self) -> Design:
        """What every other design is compared with."""

    def ranking(self, trials: Sequence[Trial]) -> list[Design]:
        """The completed designs of `trials`, the best first."""


@dataclass(frozen=True)
class ConfirmingProposer:
    """A `Proposer`: what `search` proposes, then the confirmation of its best designs.

    Args:
        trials: of the whole search, those of the confirmation included.
    """

    search: RankingProposer
    trials: int
    confirmation: Confirmation

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal | None:
        """See `Proposer.propose`."""
        searched = [trial for trial in trials if trial.origin is not Origin.CONFIRMATION]
        if len(searched) < self.trials - self.confirmation.trials:
            try:
                return self.search.propose(searched, seed=seed)
            except SpaceExhausted:
                if not self.confirmation.trials:
                    raise
        if not self.confirmation.trials:
            raise SpaceExhausted("all trials of the search have been proposed")
        if not all(trial.state.is_final for trial in searched):
            return None
        begun = {trial.design for trial in trials if trial.origin is Origin.CONFIRMATION}
        seeds = new_seeds(searched, self.confirmation.seeds)
        for design in self.to_confirm(searched):
            if design not in begun:
                return Proposal(design, Origin.CONFIRMATION, 0.0, seeds=seeds)
        raise SpaceExhausted("all designs that are to be confirmed have been")

    def to_confirm(self, searched: Sequence[Trial]) -> list[Design]:
        """The all-serial design, then the best others; none where it has no others to be compared with."""
        fixed = self.search.fixed_design
        ranked = self.search.ranking(searched)
        others = [design for design in ranked if design != fixed][: self.confirmation.designs - 1]
        return [fixed, *others] if fixed in ranked and others else []


def new_seeds(trials: Sequence[Trial], count: int) -> tuple[int, ...]:
    """Training seeds that none of `trials` has had."""
    first = 1 + max((trial.seed for trial in trials), default=-1)
    return tuple(range(first, first + count))
