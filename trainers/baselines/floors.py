"""The floors that stand beside every result, with and without seen items: what needs no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainers.baselines.item_knn import item_knn
from trainers.baselines.markov import markov
from trainers.baselines.popularity import popularity
from trainers.baselines.repeat_last import repeat_last
from trainers.data.sequence_data import SequenceData, Split
from trainers.ranks import ScoreChunk, Setting, UserRanks, evaluate_scores


@dataclass(frozen=True)
class Floor:
    """One floor under one treatment of seen items."""

    name: str
    ranks: UserRanks

    @property
    def exclude_seen(self) -> bool:
        return self.ranks.exclude_seen


def floors(data: SequenceData, split: Split, counted_on: SequenceData | None = None) -> tuple[Floor, ...]:
    """All floors, on every user of `data`; they know the training part of `counted_on` (the users trained on), else of
    `data`."""
    source = counted_on or data
    knowing = {"item-knn": item_knn(data, source), "markov": markov(data, source)}
    return _ranked(data, split, source, _cheap(data, source) | knowing)


def cheap_floors(data: SequenceData, split: Split) -> tuple[Floor, ...]:
    """Popularity and repeat-last: those whose time and memory grow with the interactions alone."""
    return _ranked(data, split, data, _cheap(data, data))


def _cheap(data: SequenceData, source: SequenceData) -> dict[str, ScoreChunk]:
    return {"popularity": popularity(source), "repeat-last": repeat_last(data, source)}


def _ranked(
    data: SequenceData, split: Split, source: SequenceData, scorers: Mapping[str, ScoreChunk]
) -> tuple[Floor, ...]:
    settings = (Setting(split), Setting(split, exclude_seen=True))
    tables = {name: evaluate_scores(data, settings, scorer, counted_on=source) for name, scorer in scorers.items()}
    return tuple(Floor(name, of_floor[place]) for place in range(len(settings)) for name, of_floor in tables.items())
