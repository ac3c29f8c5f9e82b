"""Is ours as good as RecBole's? Compared user by user, each user's reciprocal rank averaged over the training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from trainers.metrics import per_user
from trainers.ranks import UserRanks, check_comparable
from trainers.statistics import PairedDifference, paired_difference

MARGIN = 0.05
"""Of RecBole's MRR: so much worse ours may be."""
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Verdict:
    """One model on the test items."""

    model: str
    ours: tuple[float, ...]
    """MRR of each seed"""
    recbole: tuple[float, ...]
    difference: PairedDifference
    """Ours minus RecBole's"""

    @property
    def margin(self) -> float:
        """The least that the difference may be, below zero."""
        return -MARGIN * float(np.mean(self.recbole))

    @property
    def holds(self) -> bool:
        return self.difference.low > self.margin

    @property
    def told(self) -> str:
        """`open`: the interval holds the margin, so more users would be needed to tell."""
        if self.holds:
            return "holds"
        return "does not hold" if self.difference.high <= self.margin else "open"


def verdict(model: str, ours: Sequence[UserRanks], recbole: Sequence[UserRanks]) -> Verdict:
    """Compare the ranks of the same seeds.

    Raises:
        UserError: they are of different users, targets, data or settings.
    """
    for one in (*ours, *recbole):
        check_comparable(ours[0], one)
    left, right = (_reciprocal(side) for side in (ours, recbole))
    return Verdict(
        model,
        tuple(left.mean(axis=1).tolist()),
        tuple(right.mean(axis=1).tolist()),
        paired_difference(left.mean(axis=0), right.mean(axis=0), seed=BOOTSTRAP_SEED),
    )


def verdicts_table(verdicts: Sequence[Verdict], title: str) -> Table:
    table = Table("model", title=title, caption="±: deviation between seeds; [ ]: 95 % over users, paired")
    for heading in ("MRR ours", "MRR RecBole's", "difference", "-5 % is", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in verdicts:
        difference = f"{one.difference.mean:+.4f} [{one.difference.low:+.4f}, {one.difference.high:+.4f}]"
        table.add_row(one.model, _mean(one.ours), _mean(one.recbole), difference, f"{one.margin:+.4f}", one.told)
    return table


def _reciprocal(side: Sequence[UserRanks]) -> NDArray[np.float64]:
    """[seeds, U]"""
    return np.stack([per_user(ranks)["mrr"] for ranks in side])


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"
