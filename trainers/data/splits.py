"""Which interactions of a user are trained on, and which two are held out: leave-one-out, or a global split in time.

Leave-one-out (paper, 3.1.2) holds out each user's last two interactions, so a model is trained on what some users did
after the moment at which others are tested. The global split has two moments for all: what lies before the first is
trained on, the first interaction between them is the user's validation item, and the first one after the second is the
test item, whose history is everything before it. A user who did nothing in a period has no item there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from trainers.config import STRICT

NONE = -1
"""In place of an item that a user does not have."""


@checked_dataclass(frozen=True, config=STRICT)
class TemporalSplit:
    """Two moments for all users, given as shares of all interactions."""

    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the interactions between the two moments."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the interactions from the second moment on."""

    @property
    def told(self) -> str:
        """For manifest and fingerprint."""
        return (
            f"global in time, the newest {self.test_share:.4g} of all interactions for test and "
            f"{self.validation_share:.4g} before them for validation"
        )


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Places in the array of all interactions, for each of U users."""

    training_ends: NDArray[np.int64]
    """[U] after the last interaction that is trained on; where the user's interactions begin, if none is"""
    validation: NDArray[np.int64]
    """[U] of the validation item, or `NONE`"""
    test: NDArray[np.int64]
    """[U] of the test item, or `NONE`"""

    def select(self, users: NDArray[np.int64], moved_by: NDArray[np.int64]) -> HeldOut:
        """Of some users, whose interactions have moved by [len(users)] places."""
        validation, test = (
            np.where(places[users] == NONE, NONE, places[users] + moved_by) for places in (self.validation, self.test)
        )
        return HeldOut(self.training_ends[users] + moved_by, validation, test)


def temporal_split(offsets: NDArray[np.int64], timestamps: NDArray[np.float64], split: TemporalSplit) -> HeldOut:
    """Places of a global split. Equal time stamps fall on one side.

    Args:
        offsets: [U + 1] where each user's interactions begin, oldest to newest.
        timestamps: [interactions]
    """
    ordered = np.sort(timestamps)
    total = len(ordered)
    first, second = (
        ordered[min(total - 1, round(total * share))]
        for share in (1 - split.validation_share - split.test_share, 1 - split.test_share)
    )
    starts, ends = offsets[:-1], offsets[1:]
    before = np.concatenate([[0], np.cumsum(timestamps < first)])
    training_ends = starts + before[ends] - before[starts]
    earlier = np.concatenate([[0], np.cumsum(timestamps < second)])
    test = starts + earlier[ends] - earlier[starts]
    # Without anything before it, an item follows from nothing.
    has_validation = (training_ends < test) & (training_ends > starts)
    has_test = (test < ends) & (test > starts)
    return HeldOut(training_ends, np.where(has_validation, training_ends, NONE), np.where(has_test, test, NONE))
