"""A search method without a surrogate, for tests of what is around it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mixrec_automl.search.proposer import Proposal, SpaceExhausted
from mixrec_automl.store.records import Origin, Trial
from search_spaces.architecture import Architecture
from search_spaces.design import Design


@dataclass
class Enumerating:
    """Proposes all designs in order; remembers what it was asked with."""

    bits: int = 6
    seconds: float = 0.0
    asked: list[tuple[Trial, ...]] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        self.asked.append(tuple(trials))
        self.seeds.add(seed)
        time.sleep(self.seconds)
        seen = {trial.architecture for trial in trials}
        for bits in itertools.product((0, 1), repeat=self.bits):
            if (design := Architecture.from_bits(bits)) not in seen:
                return Proposal(Design(design), Origin.SOBOL, 0.01)
        raise SpaceExhausted
