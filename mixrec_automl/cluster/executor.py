"""The seam between the controller and whatever runs trials: submit, take the next event, stop, close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.fair_share import Machine


@dataclass(frozen=True)
class TrialBegan:
    """A worker has taken the attempt; until then it waited for one. The first event of an attempt."""

    number: int
    attempt: int


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of an attempt has ended; the trial goes on."""

    number: int
    attempt: int
    epoch: int
    """From 1"""
    metrics: Mapping[str, float]
    seconds: float = field(default=0.0, compare=False)
    """Since the attempt began or its last epoch ended, on the worker's clock"""


@dataclass(frozen=True)
class TrialCompleted:
    """All epochs have run. Comes after the last `EpochEnded` of the attempt, once the slot is free again."""

    number: int
    attempt: int
    mrr: float
    standard_error: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """As of `TrialScore`"""


@dataclass(frozen=True)
class TrialFailed:
    """The training raised, or its process died; the slot is free again."""

    number: int
    attempt: int
    error: str
    """Traceback of the training where it raised, else what is known of its end"""


@dataclass(frozen=True)
class TrialStopped:
    """The training ended early because `stop` or `end_early` asked for it; its checkpoint allows going on."""

    number: int
    attempt: int


@dataclass(frozen=True)
class TrialLost:
    """The attempt ended through no fault of its design: its worker died, was killed because it hung, or its storage
    failed. It can be tried again."""

    number: int
    attempt: int
    reason: str
    is_storage: bool = False
    """Whether what failed was the disk or file system, which other trials will meet as well"""
    has_begun: bool = True
    """Whether a worker had begun it; else its design cannot have had a part in it"""


@dataclass(frozen=True)
class SlotsWaiting:
    """Some slots cannot work for now; of no single trial."""

    why: str | None
    """None: all can again"""


@dataclass(frozen=True)
class MachinesChanged:
    """What a cluster that several searches share has to offer; of no single trial. Comes first, and with each change"""

    machines: tuple[Machine, ...]


TrialEnded = TrialCompleted | TrialFailed | TrialStopped | TrialLost
Event = TrialBegan | EpochEnded | TrialEnded | SlotsWaiting | MachinesChanged


class ExecutorDied(RuntimeError):  # noqa: N818 - an end, as SpaceExhausted
    """The processes between controller and workers are gone; a new executor can take their place."""


class Executor(Protocol):
    """Runs trials side by side. Used from one thread. Every method but `close` may raise ExecutorDied."""

    def submit(self, trial: TrialTask) -> None:
        """Start `trial` and return at once. The caller submits no more trials than there are slots."""

    def next_event(self, timeout: float) -> Event | None:
        """The oldest event not yet taken, waiting up to `timeout` seconds for one; None where none came.

        The events of a trial come in order and exactly one `TrialEnded` ends them; one that never began has no other.
        """

    def use(self, slots: int) -> None:
        """Keep at most so many slots up from now on, of those there are; one that trains is given back once its trial
        has ended."""

    def end_early(self, number: int, attempt: int) -> None:
        """Ask an attempt to end after the epoch it is in. `TrialStopped` follows, unless it ends in another way first;
        one that has ended is ignored."""

    def cancel(self, number: int, attempt: int) -> None:
        """End an attempt that hangs, whatever it is doing; its `TrialLost` follows. One that has ended is ignored."""

    def stop(self) -> None:
        """Ask all running trials to end after the epoch they are in."""

    def close(self) -> None:
        """End everything at once; what still runs gives no more events. May be called twice."""
