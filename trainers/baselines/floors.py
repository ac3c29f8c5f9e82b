"""The floors that stand beside every result: popularity and repeat-last, with and without seen items."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.baselines.popularity import popularity
from trainers.baselines.repeat_last import repeat_last
from trainers.data.sequence_data import SequenceData
from trainers.ranks import Split, UserRanks, evaluate_scores


@dataclass(frozen=True)
class Floor:
    """One floor under one treatment of seen items."""

    name: str
    exclude_seen: bool
    ranks: UserRanks


def floors(data: SequenceData, split: Split, counted_on: SequenceData | None = None) -> tuple[Floor, ...]:
    """All four, on every user of `data`; popularity is counted on `counted_on` (the users trained on), else `data`."""
    source = counted_on or data
    scorers = {"popularity": popularity(source), "repeat-last": repeat_last(data, split, source)}
    return tuple(
        Floor(name, exclude_seen, evaluate_scores(data, split, scorer, exclude_seen=exclude_seen, counted_on=source))
        for exclude_seen in (False, True)
        for name, scorer in scorers.items()
    )
