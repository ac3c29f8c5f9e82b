"""What a search tells of itself while it runs."""

from __future__ import annotations

from typing import Protocol

from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.store.records import Trial


class SearchListener(Protocol):
    """Watches a search; called from the loop's thread, so an implementation returns quickly."""

    def proposing(self) -> None:
        """The next design has been asked for."""

    def proposed(self, proposal: Proposal) -> None:
        """It is there; its trials are recorded next."""

    def trial_changed(self, trial: Trial) -> None:
        """A trial is new or in another state."""

    def epoch_ended(self, event: EpochEnded) -> None:
        """A running trial has finished an epoch."""

    def notice(self, text: str | None) -> None:
        """What the search is waiting for, in words; None: for nothing any more."""

    def sharing(self, text: str | None) -> None:
        """Why it may not use all its slots, in words; None: it may."""

    def stopping(self) -> None:
        """No trial is started any more; those that run are asked to end."""
