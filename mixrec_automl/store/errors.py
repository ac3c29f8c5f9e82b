"""What the database refuses; both are errors of the program, not of its user."""

from __future__ import annotations


class WrongStateError(RuntimeError):
    """The record is not in a state from which this change is possible."""


class StaleAttemptError(RuntimeError):
    """The message belongs to an attempt of the trial that is no longer the current one; drop it."""
