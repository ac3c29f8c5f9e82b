"""How many slots a search may use of a Ray cluster that it shares: asked by its controller every few seconds.

Nobody hands slots out. Each controller reads what all that run on its cluster ask for, and `fair_share.allot` gives all
of them the same answer; they differ for a moment at most, and Ray then lets the later one wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from mixrec_automl.fair_share import Claim, Machine, allot
from mixrec_automl.search_config import ClusterConfig
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.records import Search
from mixrec_automl.store.writer import SearchWriter
from trainers.errors import UserError

QUOTA = "MIXREC_SLOTS_PER_USER"
LOOK_SECONDS = 3.0
"""How often a controller looks who shares its cluster; as often as it renews its lease."""
MOST_NAMED = 3


class ClusterShare:
    """What one search may use of its cluster: nothing before the first `look` that answers True.

    Args:
        writer: of the search; keeps what it gets.
        slots: that it may use at most.
        running: reads all searches that run on the cluster, oldest first, this one among them.
        quota: slots of an owner's searches together; None: no limit.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        writer: SearchWriter,
        slots: int,
        running: Callable[[], Sequence[Search]],
        quota: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer, self._most, self._running = writer, slots, running
        self._quota, self._clock = quota, clock
        self.machines: tuple[Machine, ...] = ()
        """Of the cluster, as last told by the executor"""
        self.slots = 0
        self.note: str | None = None
        """Why these are less than it could use"""
        self._told: tuple[int, int, str | None] | None = None
        self._asked: tuple[int, tuple[Machine, ...]] = (0, ())
        self._next_look = -float("inf")

    def look(self, wanted: int) -> bool:
        """Whether `slots` or `note` are new. A database that does not answer leaves them as they are.

        Args:
            wanted: slots that the search could use now.

        Raises:
            LeaseLostError: another process has taken the search over.
        """
        now = self._clock()
        if not self.machines or (now < self._next_look and self._asked == (wanted, self.machines)):
            return False
        self._next_look, self._asked = now + LOOK_SECONDS, (wanted, self.machines)
        try:
            told = (wanted, *self._share(wanted))
            if told == self._told:
                return False
            self._writer.note_slots(*told)
        except DatabaseUnavailableError:
            return False
        self._told = told
        _, self.slots, self.note = told
        return True

    def _share(self, wanted: int) -> tuple[int, str | None]:
        name = self._writer.lease.search
        searches = self._running()
        others = [search for search in searches if search.name != name]
        mine = next((search for search in searches if search.name == name), None)
        if mine is None:  # the lease ran out while the database was away, and is renewed in a moment
            return self.slots, self.note
        claims = [claim_of(search, wanted if search is mine else None) for search in searches]
        allotted = allot(claims, self.machines, self._quota)
        if allotted[name] >= wanted:
            return allotted[name], None
        of_owner = sum(allotted[claim.search] for claim in claims if claim.owner == claim_of(mine).owner)
        if self._quota is not None and of_owner >= self._quota:
            why = f"{mine.owner or 'one user'} may use {self._quota} ({QUOTA})"
        elif others:
            why = f"shares the cluster with {_named(others)}"
        else:
            why = "the cluster has room for no more"
        return allotted[name], f"{allotted[name]} of {self._most} slots: {why}"


def claim_of(search: Search, wanted: int | None = None) -> Claim:
    """What `search` asks for: `wanted` slots, else what it said last, else all that it may use."""
    # A key that is newer than the recording had its default then.
    cluster = {**asdict(ClusterConfig()), **search.config.get("cluster", {})}
    slots = next(known for known in (wanted, search.slots_wanted, cluster["slots"]) if known is not None)
    return Claim(
        search.name,
        search.owner or "",
        search.priority,
        slots,
        cluster["workers_per_trial"],
        cluster["cpus_per_worker"],
        cluster["gpus_per_worker"],
    )


def slots_per_user() -> int | None:
    """`$MIXREC_SLOTS_PER_USER`, set where the cluster's controllers run; None: no limit.

    Raises:
        UserError: it is no whole number above zero.
    """
    text = os.environ.get(QUOTA)
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{QUOTA}={text}: give a whole number of slots, at least 1, or unset it for no limit")
    return int(text)


def _named(others: Sequence[Search]) -> str:
    told = [f"{one.name} (priority {one.priority})" if one.priority else one.name for one in others[:MOST_NAMED]]
    more = [f"{len(others) - MOST_NAMED} more"] if len(others) > MOST_NAMED else []
    return ", ".join([*told, *more])
