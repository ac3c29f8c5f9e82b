"""Full ranking over the catalogue: where each user's held-out item lands, with what is worth knowing about it.

Shapes: B users of a chunk, I items of the catalogue, N users in all. Rulings 13 (seen items) and 14 (ties, NaN) of
our digest of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.histories import ends_of, histories, repeats
from trainers.data.names import Names
from trainers.data.sequence_data import SequenceData, Split
from trainers.errors import UserError, refusing

ScoreChunk = Callable[[NDArray[np.int64], tuple[Split, ...]], Sequence[Tensor]]
"""User indices [B] and distinct splits -> scores [B, I] of each split, higher is better; several may be one tensor."""
Ranked = tuple[Tensor, Tensor]
"""Of each target [B]: items above it, and items level with it, itself among these; int64."""

SCORES_AT_ONCE = 1 << 19
"""Scores that `evaluate_scores` asks for at a time: they fit a processor's cache, which ranks three times faster."""
USERS_AT_LEAST = 64
"""Users that `evaluate_scores` asks for even so: a model sorts them by length and runs them in batches."""


@dataclass(frozen=True)
class Setting:
    """Which held-out item is ranked, and among what."""

    split: Split
    exclude_seen: bool = False
    """Leave the items of the history out of the ranking (ruling 13); a target among them stays."""

    @property
    def prefix(self) -> str:
        """Of its metrics' names: `test`, `test_unseen`."""
        return f"{self.split}_unseen" if self.exclude_seen else self.split

    @property
    def file(self) -> str:
        """Name of the file of its ranks."""
        return f"{self.split}-ranks{'-unseen' if self.exclude_seen else ''}.parquet"


TEST_SETTINGS = (Setting("test"), Setting("test", exclude_seen=True))
"""What every test reports, the paper's setting first"""


class NonFiniteScoreError(ValueError):
    """A score is NaN or infinite: no rank can be trusted."""


def rank_targets(scores: Tensor, targets: Tensor) -> Ranked:
    """Where each target lands among the whole catalogue.

    Args:
        scores: [B, I], higher is better, any dtype; compared as they are, with no tolerance.
        targets: [B] item index.

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
    # Ones as float32: on a CPU torch writes and adds up booleans seven times slower. Exact up to 2^24 items.
    ones = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
    above = torch.gt(scores, at_target, out=ones).sum(dim=1).long()
    return above, torch.eq(scores, at_target, out=ones).sum(dim=1).long()


def leave_out(ranked: Ranked, scores: Tensor, targets: Tensor, excluded: Tensor) -> Ranked:
    """What `rank_targets` found, without some items; only their scores are read.

    Args:
        excluded: [P, 2] pairs (row of `scores`, item) that do not take part; repeats are harmless and a row's own
            target always takes part.
    """
    items = scores.shape[1]
    pairs = torch.unique(excluded[:, 0] * items + excluded[:, 1])
    rows, left = pairs // items, pairs % items
    others = left != targets[rows]
    rows, left = rows[others], left[others]
    found, at_target = scores[rows, left], scores[rows, targets[rows]]
    above, level = ranked
    return (
        above.index_add(0, rows, (found > at_target).long(), alpha=-1),
        level.index_add(0, rows, (found == at_target).long(), alpha=-1),
    )


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
    def setting(self) -> Setting:
        return Setting(self.split, self.exclude_seen)

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
        with refusing(f"{path}: no table of per-user ranks"):
            table = pq.read_table(path).select(list(COLUMNS))
            if tuple(table.schema.types) != KINDS or any(column.null_count for column in table.columns):
                raise ValueError("its columns hold something else")
            if not len(table):
                raise ValueError("it has no users")
            described = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            columns = {name: table.column(name).to_numpy() for name in COLUMNS}
            columns["user"] = columns["user"].astype(np.str_)
            split, exclude_seen, fingerprint = (described[key] for key in ("split", "exclude_seen", "fingerprint"))
            above = columns["rank"] - (columns["ties"] + 1) / 2
            if columns["ties"].min() < 1 or not ((above >= 0) & (above < MOST_ITEMS)).all():
                raise ValueError("its ranks are none")
            if split not in get_args(Split):
                raise ValueError(f"{split!r} is no split")
            return cls(
                **columns, split=cast(Split, split), exclude_seen=exclude_seen == "True", fingerprint=fingerprint
            )


COLUMNS = tuple(field.name for field in fields(UserRanks))[:-3]
"""The per-user fields, in order."""
KINDS = (pa.string(), pa.int32(), pa.float64(), pa.int64(), pa.int64(), pa.int64(), pa.bool_(), pa.bool_())
"""Of the same in a file."""
MOST_ITEMS = 1 << 31


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


def targets_of(data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:
    """[B] held-out item of each user, int64."""
    return torch.from_numpy(data.items[ends_of(data, users, split)].astype(np.int64))


def seen_pairs(data: SequenceData, users: NDArray[np.int64], split: Split) -> Tensor:
    """[P, 2] pairs (row, item) of every user's history: `excluded` of `leave_out`."""
    rows, items = histories(data, users, split)
    return torch.from_numpy(np.stack([rows, items.astype(np.int64)], axis=1))


def describe_ranks(
    data: SequenceData, setting: Setting, users: NDArray[np.int64], ranked: Ranked, counts: NDArray[np.int64]
) -> UserRanks:
    """Ranks of the targets of `users` under `setting`, with their side facts.

    Args:
        users: [N] distinct user indices, in the order of `ranked`.
        counts: [I] training interactions of every item over the users that the model was trained on.
    """
    above, level = (column.cpu().numpy().astype(np.int64) for column in ranked)
    ends = ends_of(data, users, setting.split)
    target = data.items[ends].astype(np.int32)
    return UserRanks(
        user=np.array(list(Names.of(data.user_ids).take(users)), dtype=np.str_),
        target=target,
        rank=above + (level + 1) / 2,
        ties=level,
        history_length=ends - data.offsets[users],
        popularity=counts[target],
        repeat=repeats(data, users, setting.split),
        cold=counts[target] == 0,
        split=setting.split,
        exclude_seen=setting.exclude_seen,
        fingerprint=data.fingerprint,
    )


def users_at_once(data: SequenceData) -> int:
    """Users whose scores `evaluate_scores` asks for at a time."""
    return max(USERS_AT_LEAST, SCORES_AT_ONCE // data.num_items)


def evaluate_scores(
    data: SequenceData,
    settings: Sequence[Setting],
    score_chunk: ScoreChunk,
    *,
    users: NDArray[np.int64] | None = None,
    counted_on: SequenceData | None = None,
) -> tuple[UserRanks, ...]:
    """Rank users by `score_chunk` under each setting, every user scored once, a bounded number of them at a time.

    Args:
        users: distinct indices in the order in which they are scored, all that have the item when absent; the tables
            have them in ascending order.
        counted_on: the users trained on, for `popularity` and `cold`; `data` itself when absent.

    Returns:
        One table for each of `settings`, in their order.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
        ValueError: `score_chunk` returns another shape than [B, I], or not one tensor for each split; or a user has not
            the items of all splits.
    """
    splits = tuple(dict.fromkeys(setting.split for setting in settings))
    asked = data.users_with(splits[0]) if users is None else users
    step = users_at_once(data)
    found: dict[Setting, list[Ranked]] = {setting: [] for setting in settings}
    for first in range(0, len(asked), step):
        chunk = asked[first : first + step]
        for split, scores in zip(splits, score_chunk(chunk, splits), strict=True):
            if scores.shape != (len(chunk), data.num_items):
                raise ValueError(f"expected scores [{len(chunk)}, {data.num_items}], got {list(scores.shape)}")
            targets = targets_of(data, chunk, split).to(scores.device)
            ranked = rank_targets(scores, targets)
            for setting in found:
                if setting == Setting(split):
                    found[setting].append(ranked)
                elif setting.split == split:
                    seen = seen_pairs(data, chunk, split).to(scores.device)
                    found[setting].append(leave_out(ranked, scores, targets, seen))
    ascending = np.argsort(asked)
    counts = (counted_on or data).training_counts()
    tables = {}
    for setting, parts in found.items():
        above, level = (torch.cat(column)[ascending] for column in zip(*parts, strict=True))
        tables[setting] = describe_ranks(data, setting, asked[ascending], (above, level), counts)
    return tuple(tables[setting] for setting in settings)
