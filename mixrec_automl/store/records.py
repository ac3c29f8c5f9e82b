"""The values that the database hands out: searches, trials and their learning curves. All frozen; time is UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from statistics import fmean
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.design import Design
from search_spaces.mixed import Value


class SearchState(StrEnum):
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    """All trials of the budget have ended."""
    STOPPED = "STOPPED"
    """Ended early on request; can be resumed."""
    FAILED = "FAILED"
    """Ended by an error or by too many failed trials; can be resumed."""


class TrialState(StrEnum):
    QUEUED = "QUEUED"
    """Proposed and recorded, not yet handed to a worker (also after an interruption, to be run again)."""
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    PRUNED = "PRUNED"
    """Ended early because it did not look promising: it has no result, and that is no failure."""

    @property
    def is_final(self) -> bool:
        return self in (TrialState.COMPLETED, TrialState.FAILED, TrialState.PRUNED)


class Origin(StrEnum):
    """Who proposed a design."""

    FIXED = "fixed design"
    WARM_START = "warm start"
    """One of the best designs of another search (`search.warm_start`)"""
    SOBOL = "Sobol"
    PROBABILISTIC_REPARAMETERIZATION = "probabilistic reparameterization"
    REPLICATION = "replication"
    """A design trained before, once more with another seed"""
    CONFIRMATION = "confirmation"
    """One of the best designs of a search, once more with new seeds"""
    STUDY = "study"
    """No search: a declared grid"""

    @property
    def short(self) -> str:
        """For tables."""
        return {
            Origin.FIXED: "fixed",
            Origin.WARM_START: "warm",
            Origin.PROBABILISTIC_REPARAMETERIZATION: "PR",
            Origin.REPLICATION: "again",
            Origin.CONFIRMATION: "confirm",
        }.get(self, str(self))


@dataclass(frozen=True)
class Trial:
    """One design trained once, with one training seed."""

    number: int
    """Zero-based, in the order of proposal."""
    design: Design
    seed: int
    """Training seed; trials that share design and differ in it are replicates."""
    origin: Origin
    state: TrialState
    attempt: int
    """How often it was handed to a worker; 0 while it has never been."""
    proposal_seconds: float
    """What it took to propose this design: surrogate fit and acquisition."""
    variant: str = ""
    """Of a study: which of its configurations was trained; a search has one, without a name."""
    mrr: float | None = None
    """Best validation MRR over its epochs, once COMPLETED."""
    standard_error: float | None = None
    """Of `mrr` over users: mostly an offset common to all trials, so for display only."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the training reported at its end, e.g. ``test_mrr`` in a study."""
    error: str | None = None
    """Traceback, once FAILED; the reason, once PRUNED; while QUEUED or RUNNING, how an earlier attempt was lost."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    """Start of the last attempt."""
    finished_at: datetime | None = None
    losses: int = 0
    """Attempts that ended through no fault of the design: a worker died or hung."""

    @property
    def architecture(self) -> Architecture:
        return self.design.architecture

    @property
    def settings(self) -> Mapping[str, Value]:
        """What `search.settings` declares, as this design has it, by dotted key."""
        return dict(self.design.settings)

    @property
    def label(self) -> str:
        """What tells it apart: its variant in a study, its design in a search."""
        return self.variant or str(self.design)


def by_design(trials: Iterable[Trial]) -> dict[Design, list[Trial]]:
    """The replicates of each design; designs and replicates by number, in whatever order they are given.

    Of a study's trials, those of one variant.
    """
    designs: dict[Design, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        designs.setdefault(trial.design, []).append(trial)
    return designs


def fixed_design(trials: Iterable[Trial]) -> Design | None:
    """What all others are compared with; None before it is proposed, and of a study, which has none."""
    return next((trial.design for trial in trials if trial.origin is Origin.FIXED), None)


def replicates_of(trial: Trial, trials: Iterable[Trial]) -> list[Trial]:
    """Those of `trials` that share the variant and the design of `trial`, itself included, by number."""
    return by_design(one for one in trials if one.variant == trial.variant)[trial.design]


def scores(trials: Iterable[Trial]) -> list[float]:
    """The MRR of each completed trial."""
    return [trial.mrr for trial in trials if trial.state is TrialState.COMPLETED and trial.mrr is not None]


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The best replicate of the best design, the earliest of equals; None while no trial is completed.

    The best design is that with the highest mean MRR over its completed replicates. One with replicates yet to end is
    chosen only where there is no other: the first of several to come in may be a lucky one. Once the confirmation of a
    search has ended its trials alone are looked at, for no design was chosen by them; where a training of it failed, of
    the seeds that all designs have completed, if there is one: seeds differ in luck.
    """
    variants: dict[str, list[Trial]] = {}
    for trial in sorted(decisive(trials), key=lambda trial: trial.number):
        variants.setdefault(trial.variant, []).append(trial)
    groups = [replicates for of_variant in variants.values() for replicates in by_design(of_variant).values()]
    completed = [replicates for replicates in groups if scores(replicates)]
    whole = [replicates for replicates in completed if all(trial.state.is_final for trial in replicates)]
    shared = _shared_seeds(whole)

    def score(replicates: list[Trial]) -> float:
        return fmean(scores(trial for trial in replicates if trial.seed in shared) or scores(replicates))

    design = max(whole or completed, key=score, default=[])
    return max((trial for trial in design if scores([trial])), key=lambda trial: trial.mrr or 0.0, default=None)


def _shared_seeds(groups: Sequence[Sequence[Trial]]) -> set[int]:
    """Those that every one of `groups` has completed; none where they are not of a confirmation."""
    if any(trial.origin is not Origin.CONFIRMATION for group in groups for trial in group):
        return set()
    completed = [{trial.seed for trial in group if scores([trial])} for group in groups]
    return set.intersection(*completed) if completed else set()


def decisive(trials: Iterable[Trial]) -> list[Trial]:
    """By which `best_trial` decides: the trials of the confirmation once that has ended, the others until then."""
    trials = list(trials)
    confirming = [trial for trial in trials if trial.origin is Origin.CONFIRMATION]
    if scores(confirming) and all(trial.state.is_final for trial in confirming):
        return confirming
    return [trial for trial in trials if trial.origin is not Origin.CONFIRMATION]


@dataclass(frozen=True)
class Observation:
    """What one epoch of one attempt reported."""

    trial: int
    attempt: int
    epoch: int
    """One-based."""
    metrics: Mapping[str, float]
    """Flat names, e.g. ``validation_mrr``, ``loss_seq``, ``seconds``."""
    recorded_at: datetime


def last_epochs(observations: Iterable[Observation]) -> dict[int, int]:
    """The last epoch of each trial that has one, over all its attempts."""
    last: dict[int, int] = {}
    for seen in observations:
        last[seen.trial] = max(seen.epoch, last.get(seen.trial, 0))
    return last


def epochs_saved(trials: Iterable[Trial], last: Mapping[int, int], planned: int) -> int:
    """How many epochs pruning has spared.

    Args:
        last: as of `last_epochs`.
        planned: epochs of a whole training.
    """
    pruned = (trial.number for trial in trials if trial.state is TrialState.PRUNED)
    return sum(max(planned - last.get(number, 0), 0) for number in pruned)


@dataclass(frozen=True)
class WarmStart:
    """What was known of another search when this one began: later trials of that one, or its end, change nothing."""

    search: str
    """Name of the other one"""
    outcomes: tuple[tuple[Design, float], ...]
    """Design and MRR of each of its completed trials, by number"""

    @property
    def trials(self) -> list[Trial]:
        """The same as trials, each with a training seed of its own."""
        return [
            Trial(number, design, number, Origin.WARM_START, TrialState.COMPLETED, 1, 0.0, mrr=mrr)
            for number, (design, mrr) in enumerate(self.outcomes)
        ]


@dataclass(frozen=True)
class Search:
    """A budget of trials over one space and one data set."""

    name: str
    state: SearchState
    config: Mapping[str, Any]
    """The resolved configuration, as the YAML file would hold it."""
    fingerprint: str
    """Of data, split, tokeniser and configuration."""
    floors: Mapping[str, float]
    """Validation MRR of popularity and repeat-last on the users of the trials, e.g. ``popularity``; where seen items
    are left out of the ranking, ``popularity_unseen``."""
    created_at: datetime
    updated_at: datetime
    error: str | None = None
    revision: int = 0
    """How many changes the search and its trials have seen: proposals, epochs, results."""
    tracked_revision: int = -1
    """Up to which of them MLflow shows all."""
    tracking_error: str | None = None
    """Why MLflow does not yet show all of it; the search itself is unaffected."""
    controller: str | None = None
    """The process that holds the search's lease; None where none does, so that a RUNNING search stands still."""
    is_to_stop: bool = False
    """Whether its controller has been asked to stop."""
    warm_start: WarmStart | None = None
    owner: str | None = None
    """The user who started it; None where it is older than that was recorded."""
    cluster: str | None = None
    """The Ray cluster that its controller shares with others; None where it has its own, or no controller."""
    slots_wanted: int | None = None
    """Of `cluster.slots`: how many it could use now, as its controller last said; None before it did."""
    slots_allotted: int | None = None
    """How many of these it may use."""
    slots_note: str | None = None
    """Where it may use less: why, in words."""

    @property
    def priority(self) -> int:
        return int(self.config.get("cluster", {}).get("priority", 0))

    @property
    def planned_epochs(self) -> int:
        """Of the whole training of a trial, as configured; of a study, those of the variants that have no others."""
        return int(self.config.get("training", {}).get("epochs", 0))

    @property
    def changes_not_tracked(self) -> int:
        """How far MLflow is behind; the creation of the search is the first change."""
        return self.revision - self.tracked_revision


@dataclass(frozen=True)
class Lease:
    """The right to write a search. Who takes it over gets the next term, and what carries an older one is refused."""

    search: str
    term: int


KILLED = "its process was killed"
"""Of a promotion that ended without a word, as far as another process can see"""


@dataclass(frozen=True)
class Promotion:
    """One training of a winner on all users."""

    number: int
    search: str
    trial: int
    state: SearchState
    metrics: Mapping[str, float]
    """Test metrics, once COMPLETED."""
    model_version: str | None
    created_at: datetime
    finished_at: datetime | None = None
    error: str | None = None
