"""Full ranking over the catalogue: where each user's held-out item lands, with what is worth knowing about it.

Shapes: B users of a chunk, I items of the catalogue, N users in all. Rulings 13 (seen items) and 14 (ties, NaN) of
our digest of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.sequence_data import SequenceData
from trainers.errors import UserError

Split = Literal["validation", "test"]
ScoreChunk = Callable[[NDArray[np.int64]], Tensor]
"""User indices [B] -> scores [B, I], higher is better."""

SCORES_AT_ONCE = 1 << 19
"""Scores that `evaluate_scores` asks for at a time: they fit a processor's cache, which ranks three times faster."""
USERS_AT_LEAST = 64
"""Users that `evaluate_scores` asks for even so: a model sorts them by length and runs them in batches."""


class NonFiniteScoreError(ValueError):
    """A score is NaN or infinite: no rank can be trusted."""


def rank_targets(scores: Tensor, targets: Tensor, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Items above each target, and items level with it.

    Args:
        scores: [B, I], higher is better, any dtype; compared as they are, with no tolerance.
        targets: [B] item index.
        excluded: [P, 2] pairs (row of `scores`, item) that do not take part; repeats are harmless and a row's own
            target always takes part.

    Returns:
        greater [B] and ties [B], int64; the target counts among its ties, so ties >= 1.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
    """
    # The extremes carry NaN along; testing every score would take longer than ranking.
    finite = torch.isfinite(scores.amax(dim=1)) & torch.isfinite(scores.amin(dim=1))
    if not finite.all():
        bad = torch.nonzero(~finite).flatten().tolist()
        raise NonFiniteScoreError(
            f"{len(bad)} of {len(scores)} users have NaN or infinite scores (first: row {bad[0]})"
        )
    at_target = scores.gather(1, targets.unsqueeze(1))  # [B, 1]
    above, level = scores > at_target, scores == at_target
    if excluded is not None and len(excluded):
        rows, items = excluded.unbind(1)
        rows, items = excluded[items != targets[rows]].unbind(1)
        above[rows, items] = False
        level[rows, items] = False
    return above.sum(dim=1, dtype=torch.int32).long(), level.sum(dim=1, dtype=torch.int32).long()


@dataclass(frozen=True)
class UserRanks:
    """One row a user, N rows. Two of them compare only where `check_comparable` agrees."""

    user: NDArray[np.str_]
    """Raw identifier, so that rows of re-numbered users (Data_BO) still pair."""
    target: NDArray[np.int32]
    """Item index of the held-out item."""
    rank: NDArray[np.float64]
    """Expected rank, from 1, when ties are broken at random."""
    ties: NDArray[np.int64]
    """Items with the target's very score, itself included."""
    history_length: NDArray[np.int64]
    """Interactions before the target, however many of them the model read."""
    popularity: NDArray[np.int64]
    """Training interactions of the target."""
    repeat: NDArray[np.bool_]
    """The target occurs in the history."""
    cold: NDArray[np.bool_]
    """The target occurs in no training part."""
    split: Split
    exclude_seen: bool
    fingerprint: str
    """Of the data."""

    @property
    def greater(self) -> NDArray[np.int64]:
        """Items above the target."""
        return (self.rank - (self.ties + 1) / 2).astype(np.int64)

    def __len__(self) -> int:
        return len(self.user)

    def write(self, path: Path) -> None:
        """As Parquet; what holds for all rows goes into the schema's metadata."""
        described = {"split": self.split, "exclude_seen": str(self.exclude_seen), "fingerprint": self.fingerprint}
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({name: getattr(self, name) for name in COLUMNS}, metadata=described), path)

    @classmethod
    def read(cls, path: Path) -> UserRanks:
        """Inverse of `write`.

        Raises:
            UserError: no such file, or one that `write` did not write.
        """
        try:
            table = pq.read_table(path)
            described = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            columns = {name: table.column(name).to_numpy() for name in COLUMNS}
            split, exclude_seen, fingerprint = (described[key] for key in ("split", "exclude_seen", "fingerprint"))
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: no table of per-user ranks ({error})") from error
        columns["user"] = columns["user"].astype(np.str_)
        return cls(**columns, split=split, exclude_seen=exclude_seen == "True", fingerprint=fingerprint)


COLUMNS = tuple(field.name for field in fields(UserRanks))[:-3]
"""The per-user fields, in order."""


def concatenate(parts: Sequence[UserRanks]) -> UserRanks:
    """The rows of several workers, in the order given.

    Raises:
        ValueError: nothing given, parts of different evaluations, or a user in more than one part.
    """
    if not parts:
        raise ValueError("no ranks to concatenate")
    if len({(part.split, part.exclude_seen, part.fingerprint) for part in parts}) > 1:
        raise ValueError("cannot concatenate ranks of different splits, settings or data")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    if len(np.unique(columns["user"])) != len(columns["user"]):
        raise ValueError("a user was scored more than once")
    return UserRanks(
        **columns, split=parts[0].split, exclude_seen=parts[0].exclude_seen, fingerprint=parts[0].fingerprint
    )


def check_comparable(left: UserRanks, right: UserRanks) -> None:
    """Raises UserError where the rows of `left` and `right` are not the same users, targets and setting."""
    for name in ("fingerprint", "split", "exclude_seen"):
        ours, theirs = getattr(left, name), getattr(right, name)
        if ours != theirs:
            raise UserError(f"these results do not compare: {name} is {ours} and {theirs}; evaluate both alike")
    if not (np.array_equal(left.user, right.user) and np.array_equal(left.target, right.target)):
        raise UserError("these results do not compare: they are of different users; evaluate both on the same users")


def training_counts(data: SequenceData) -> NDArray[np.int64]:
    """[I] training interactions of every item."""
    return np.bincount(data.training_pairs()[1], minlength=data.num_items).astype(np.int64)


def history_and_target(data: SequenceData, user: int, split: Split) -> tuple[NDArray[np.int32], int]:
    """What may be read, oldest to newest, and what must be found: the test history holds the validation item."""
    sequence = data.sequence(user)
    end = len(sequence) - (2 if split == "validation" else 1)
    return sequence[:end], int(sequence[end])


def targets_of(data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:
    """[B] held-out item of each user, int64."""
    ends = data.offsets[users + 1] - (2 if split == "validation" else 1)
    return torch.from_numpy(data.items[ends].astype(np.int64))


def seen_pairs(data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:
    """[P, 2] pairs (row, item) of every user's history: `excluded` of `rank_targets`."""
    histories = [history_and_target(data, int(user), split)[0] for user in users]
    rows = np.repeat(np.arange(len(users)), [len(history) for history in histories])
    return torch.from_numpy(np.stack([rows, np.concatenate(histories).astype(np.int64)], axis=1))


def describe_ranks(
    data: SequenceData,
    split: Split,
    users: NDArray[np.int64],
    greater: Tensor,
    ties: Tensor,
    *,
    exclude_seen: bool,
    counts: NDArray[np.int64],
) -> UserRanks:
    """What `rank_targets` found for `users`, with their side facts.

    Args:
        users: [N] distinct user indices, in the order of `greater` [N] and `ties` [N].
        counts: [I] of `training_counts` over the users that the model was trained on.
    """
    level = ties.cpu().numpy().astype(np.int64)
    histories, targets = zip(*(history_and_target(data, int(user), split) for user in users), strict=True)
    target = np.array(targets, dtype=np.int32)
    return UserRanks(
        user=np.array([data.user_ids[user] for user in users], dtype=np.str_),
        target=target,
        rank=greater.cpu().numpy() + (level + 1) / 2,
        ties=level,
        history_length=np.array([len(history) for history in histories], dtype=np.int64),
        popularity=counts[target],
        repeat=np.array([found in history for history, found in zip(histories, targets, strict=True)], dtype=np.bool_),
        cold=counts[target] == 0,
        split=split,
        exclude_seen=exclude_seen,
        fingerprint=data.fingerprint,
    )


def evaluate_scores(
    data: SequenceData,
    split: Split,
    score_chunk: ScoreChunk,
    *,
    exclude_seen: bool = False,
    counted_on: SequenceData | None = None,
) -> UserRanks:
    """Rank every user of `data` by `score_chunk`, a bounded number of users at a time.

    Args:
        exclude_seen: leave the items of the history out of the ranking (ruling 13); a target among them stays.
        counted_on: the users trained on, for `popularity` and `cold`; `data` itself when absent.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
        ValueError: `score_chunk` returns another shape than [B, I].
    """
    users = np.arange(data.num_users)
    step = max(USERS_AT_LEAST, SCORES_AT_ONCE // data.num_items)
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(users), step):
        chunk = users[first : first + step]
        scores = score_chunk(chunk)
        if scores.shape != (len(chunk), data.num_items):
            raise ValueError(f"expected scores [{len(chunk)}, {data.num_items}], got {list(scores.shape)}")
        excluded = seen_pairs(data, chunk, split).to(scores.device) if exclude_seen else None
        found.append(rank_targets(scores, targets_of(data, chunk, split).to(scores.device), excluded))
    greater, ties = (torch.cat(column) for column in zip(*found, strict=True))
    counts = training_counts(counted_on or data)
    return describe_ranks(data, split, users, greater, ties, exclude_seen=exclude_seen, counts=counts)
