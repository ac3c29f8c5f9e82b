"""Trials for the tests of the search."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mixrec_automl.store.records import Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design

SMALL = DamoeSpace(backbone_layers=3)
PAPER = DamoeSpace(backbone_layers=12)
"""OPT-125M at r = 1: 36 bits, beyond the exact expectation."""
MIXED = (
    TrialState.COMPLETED,
    TrialState.FAILED,
    TrialState.COMPLETED,
    TrialState.RUNNING,
    TrialState.PRUNED,
    TrialState.COMPLETED,
    TrialState.QUEUED,
)


def trial(
    number: int,
    design: str | Architecture | Design,
    mrr: float | None = None,
    state: TrialState = TrialState.COMPLETED,
    origin: Origin = Origin.SOBOL,
    seed: int = 0,
) -> Trial:
    if not isinstance(design, Design):
        design = Design(Architecture.parse(design) if isinstance(design, str) else design)
    return Trial(number, design, seed, origin, state, attempt=1, proposal_seconds=0.0, mrr=mrr)


def recorded(
    space: DamoeSpace, number: int, *, states: Sequence[TrialState] = MIXED, replicates: int = 1, seed: int = 0
) -> list[Trial]:
    """Trials of `number` distinct designs, the first of them the fixed one; their states are `states` in turn."""
    draw = random.Random(seed)
    designs = {space.fixed_design: Origin.FIXED}
    while len(designs) < number:
        designs.setdefault(Architecture.from_bits([draw.randint(0, 1) for _ in range(space.num_bits)]), Origin.SOBOL)
    trials: list[Trial] = []
    for design, origin in designs.items():
        for training_seed in range(replicates):
            state = states[len(trials) % len(states)]
            mrr = draw.gauss(0.05, 0.004) if state is TrialState.COMPLETED else None
            trials.append(trial(len(trials), design, mrr=mrr, state=state, origin=origin, seed=training_seed))
    return trials
