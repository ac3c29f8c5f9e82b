"""The base of every error that the user, not the program, can mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake the user can mend: printed as one line, exit code 2."""
