"""What the controller asks of a search method. Imports neither Ax nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mixrec_automl.store.records import Origin, Trial
from search_spaces.architecture import Architecture
from search_spaces.design import Design


class SpaceExhausted(RuntimeError):  # noqa: N818 - like StopIteration, an end rather than an error
    """Every design of the space has been proposed, or all else that was to be."""


@dataclass(frozen=True)
class Proposal:
    """What is to be trained next: a design that no trial has had yet, or a known one with further seeds."""

    design: Design
    origin: Origin
    seconds: float
    """Wall-clock time it took."""
    kernel: str = ""
    """Covariance that was chosen for the surrogate; empty where none was asked."""
    variant: str = ""
    """Of a study: the configuration that is to be trained."""
    seeds: tuple[int, ...] | None = None
    """Training seeds of its trials, a trial each; that of the search where absent."""

    @property
    def architecture(self) -> Architecture:
        return self.design.architecture


class Proposer(Protocol):
    """A pure function of the recorded trials: a restarted search goes on as if it had never stopped."""

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal | None:
        """What to train next; None: that will be known once a trial that is pending has ended.

        Args:
            trials: all trials of the search, in any state and order; those QUEUED and RUNNING count as pending.
            seed: of the search, the same at each call.

        Raises:
            SpaceExhausted: there is nothing left to be trained.
        """
