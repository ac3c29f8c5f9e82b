"""What the controller asks of a search method. Imports neither Ax nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mixrec_automl.store.records import Origin, Trial
from search_spaces.architecture import Architecture


class SpaceExhausted(RuntimeError):  # noqa: N818 - like StopIteration, an end rather than an error
    """Every design of the space has been proposed."""


@dataclass(frozen=True)
class Proposal:
    """A design that no trial has had yet."""

    architecture: Architecture
    origin: Origin
    seconds: float
    """Wall-clock time it took."""
    variant: str = ""
    """Of a study: the configuration that is to be trained."""
    seeds: tuple[int, ...] | None = None
    """Training seeds of its trials; the search's replicates where absent."""


class Proposer(Protocol):
    """A pure function of the recorded trials: a restarted search goes on as if it had never stopped."""

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        """The next design, distinct from those of all `trials`.

        Args:
            trials: all trials of the search, in any state and order; those QUEUED and RUNNING count as pending.
            seed: of the search, the same at each call.

        Raises:
            SpaceExhausted: there is no design left.
        """
