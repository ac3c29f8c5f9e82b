"""The floors that stand beside every result: popularity and repeat-last, with and without seen items."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.baselines.popularity import popularity
from trainers.baselines.repeat_last import repeat_last
from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import Setting, UserRanks, evaluate_scores


@dataclass(frozen=True)
class Floor:
    """One floor under one treatment of seen items."""

    name: str
    ranks: UserRanks

    @property
    def exclude_seen(self) -> bool:
        return self.ranks.exclude_seen


def floors(data: SequenceData, split: Split, counted_on: SequenceData | None = None) -> tuple[Floor, ...]:
    """All four, on every user of `data`; popularity is counted on `counted_on` (the users trained on), else `data`."""
    source = counted_on or data
    scorers = {"popularity": popularity(source), "repeat-last": repeat_last(data, source)}
    settings = (Setting(split), Setting(split, exclude_seen=True))
    tables = {name: evaluate_scores(data, settings, scorer, counted_on=source) for name, scorer in scorers.items()}
    return tuple(Floor(name, of_floor[place]) for place in range(len(settings)) for name, of_floor in tables.items())
