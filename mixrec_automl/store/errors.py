"""What the database refuses, and what it cannot do at the moment."""

from __future__ import annotations

from trainers.errors import UserError


class WrongStateError(RuntimeError):
    """The record is not in a state from which this change is possible."""


class StaleAttemptError(RuntimeError):
    """The message belongs to an attempt of the trial that is no longer the current one; drop it."""


class LeaseHeldError(RuntimeError):
    """Another process holds the lease of the search. `holder` names it, `process` identifies it, `until` is when the
    lease ends on the database's clock: it moves while the process is alive."""

    def __init__(self, search: str, holder: str, process: str, until: float) -> None:
        super().__init__(f"search {search!r} is run by {holder}")
        self.holder, self.process, self.until = holder, process, until


class LeaseLostError(RuntimeError):
    """Another process has taken the search over; this one may write nothing more."""


class DatabaseUnavailableError(RuntimeError):
    """The database does not answer, is locked by another program or cannot write: the same call may succeed later."""


class WrongRevisionError(UserError):
    """The tables have another revision than this program's; `found` says which, `remedy` what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}: {remedy}")
        self.found, self.remedy = found, remedy
