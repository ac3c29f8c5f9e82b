"""Short ways to a search with trials, through the only door there is: a lease."""

from __future__ import annotations

from mixrec_automl.store.records import Origin, Trial
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from search_spaces.architecture import Architecture
from search_spaces.design import Design

DESIGN = Architecture.parse("010-111")
LONG = 1000.0
"""Seconds of a lease that outlives the test"""


def writer_of(
    repository: Repository, search: str = "first", *, who: str = "me", seconds: float = LONG, dead: str | None = None
) -> SearchWriter:
    """The lease of `search`; who has it already takes it again."""
    return repository.take_lease(search, f"{who}@test", who, seconds, dead=dead)


def added(writer: SearchWriter, number: int, *, design: Architecture | Design = DESIGN, seed: int = 7) -> Trial:
    own = Design(design) if isinstance(design, Architecture) else design
    (trial,) = writer.add_trials(number, own, [seed], Origin.SOBOL, 0.25)
    return trial


def started(writer: SearchWriter, number: int, *, design: Architecture | Design = DESIGN, seed: int = 7) -> Trial:
    added(writer, number, design=design, seed=seed)
    return writer.start_trial(number, 1)
