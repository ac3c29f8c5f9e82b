"""How many slots each of several searches may use, of machines that have too few for all of them.

Within one priority it is dominant resource fairness (Ghodsi et al., NSDI 2011): max-min fairness by progressive
filling, where what a search has is the larger of its shares of all CPUs and of all GPUs. Searches whose slots have the
same shape get the same number of slots, but for the last one. Priorities are strict: a lower one gets what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

UNIT = 10_000
"""The parts of a CPU or GPU that Ray deals in; whole numbers, so that all processes reach the same answer."""


@dataclass(frozen=True)
class Machine:
    """What a node of the cluster offers, used or not."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Claim:
    """What a search that runs asks for."""

    search: str
    owner: str
    priority: int
    """The higher is served first"""
    slots: int
    """That it could use at this moment"""
    workers: int
    """Processes of a slot, with `cpus` and `gpus` each; one of them needs a machine that has both"""
    cpus: float
    gpus: float


def allot(claims: Sequence[Claim], machines: Sequence[Machine], quota: int | None = None) -> dict[str, int]:
    """Slots of each search, by name. A search gets less than it asks for only where no more fits or its owner may have
    no more.

    Args:
        claims: of all searches that run, the oldest first: it is served first among equals.
        quota: slots of an owner's searches together; None: no limit.
    """
    free = [[_units(machine.cpus), _units(machine.gpus)] for machine in machines]
    total = [sum(machine[kind] for machine in free) for kind in (0, 1)]
    slots = {claim.search: 0 for claim in claims}
    unmet = list(claims)
    while unmet:
        poorest = min(unmet, key=lambda claim: (-claim.priority, slots[claim.search] * _dominant_share(claim, total)))
        had = sum(slots[claim.search] for claim in claims if claim.owner == poorest.owner)
        is_allowed = slots[poorest.search] < poorest.slots and (quota is None or had < quota)
        if is_allowed and _place(poorest, free):
            slots[poorest.search] += 1
        else:  # for good: nothing becomes free any more
            unmet.remove(poorest)
    return slots


def _dominant_share(claim: Claim, total: Sequence[int]) -> Fraction:
    """Of one slot."""
    cpus, gpus = _needs(claim)
    return max(Fraction(claim.workers * cpus, total[0] or 1), Fraction(claim.workers * gpus, total[1] or 1))


def _place(claim: Claim, free: list[list[int]]) -> bool:
    """Take a slot's processes off `free`, each from where it leaves least; False, and no change, where they do not fit.

    What needs no GPU goes to a machine without one as long as there is room.
    """
    cpus, gpus = _needs(claim)
    taken: list[list[int]] = []
    for _ in range(claim.workers):
        fitting = [machine for machine in free if machine[0] >= cpus and machine[1] >= gpus]
        if not fitting:
            for machine in taken:
                machine[0] += cpus
                machine[1] += gpus
            return False
        best = min(fitting, key=lambda machine: (machine[1] - gpus, machine[0] - cpus))
        best[0] -= cpus
        best[1] -= gpus
        taken.append(best)
    return True


def _needs(claim: Claim) -> tuple[int, int]:
    """CPUs and GPUs of a process, in units."""
    gpus = UNIT // sharers_of_a_gpu(claim.gpus) if 0 < claim.gpus < 1 else _units(claim.gpus)
    return _units(claim.cpus), gpus


def sharers_of_a_gpu(gpus: float) -> int:
    """How many processes one GPU holds that need a fraction of it, above 0."""
    # No process has parts of two GPUs: 0.4 of one leave room for one more, not for one and a half.
    return int(1 / gpus)


def _units(amount: float) -> int:
    return round(amount * UNIT)
