"""Who may be champion: the rule by which the registry alias moves (design, section 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mixrec_automl.full_training import BOOTSTRAP_SEED, Evaluation, rank_users
from trainers.data.sequence_data import SequenceData
from trainers.errors import UserError
from trainers.package import Package
from trainers.ranks import Setting
from trainers.statistics import PairedDifference, compare


@dataclass(frozen=True)
class Decision:
    """Whether the alias moves, and the difference in test MRR that decided, if any could be taken."""

    moves: bool
    rival: str
    difference: PairedDifference | None
    obstacle: str = "was trained on other data"
    """To a comparison, where there is no difference"""

    @property
    def reason(self) -> str:
        """One line for a person."""
        if self.difference is None:
            how = "forced past" if self.moves else "not compared with"
            return f"{how} {self.rival}, which {self.obstacle}"
        found = self.difference
        unsure = "not surely worse" if self.moves else "not surely better"
        verdict = "better" if found.low > 0 else "worse" if found.high < 0 else unsure
        return (
            f"{verdict} than {self.rival}: test MRR {found.mean:+.4f} on the same {found.users:,} users, "
            f"95 % interval [{found.low:+.4f}, {found.high:+.4f}]"
        )


def check_comparable_data(champion: str, champion_data: str, data: str, *, force: bool) -> None:
    """Refuse, before anything is trained, to compete with a champion of other data.

    Raises:
        UserError: the fingerprints differ and `force` is off.
    """
    if champion_data != data and not force:
        raise UserError(
            f"{champion} was trained on data {champion_data[:12]}, this search on {data[:12]}, so the two cannot be "
            f"compared; give --force to replace it unseen"
        )


def first_champion(evaluation: Evaluation) -> Decision:
    """Without a champion, popularity is the rival: the paired 95 % lower bound must lie above zero."""
    difference = evaluation.against_popularity
    return Decision(difference.low > 0, "popularity", difference)


def challenge(
    evaluation: Evaluation, read_champion: Callable[[], Package], name: str, data: SequenceData, *, force: bool
) -> Decision:
    """Score the champion again on the users that `evaluation` scored, and compare user by user.

    Args:
        force: move past a champion of other data or one that cannot be read, with which nothing can be compared.

    Raises:
        UserError: the champion cannot be read, and `force` is off.
    """
    try:
        champion = read_champion()
    except UserError as error:
        if force:
            return Decision(True, name, None, "cannot be read")
        raise UserError(f"{error}; or give --force to replace {name} unseen") from error
    if champion.data_fingerprint != data.fingerprint:
        return Decision(force, name, None)
    difference = _minus(evaluation, champion, data)
    return Decision(difference.low > 0, name, difference)


def succeed(evaluation: Evaluation, extension: Package, name: str, data: SequenceData) -> Decision:
    """The gate of an update: it stands aside unless the update is surely worse than `extension`, the champion over the
    newer catalogue without training. Between equals the one that has seen the newer data is preferred."""
    difference = _minus(evaluation, extension, data)
    return Decision(difference.high >= 0, name, difference)


def _minus(evaluation: Evaluation, rival: Package, data: SequenceData) -> PairedDifference:
    """In MRR, on the users and under the treatment of seen items that `evaluation` has."""
    (theirs,) = rank_users(rival, data, [Setting("test", evaluation.exclude_seen)])
    return compare(evaluation.ranks, theirs, seed=BOOTSTRAP_SEED)["mrr"]
