"""What a study found: every variant's test metrics, and how far it is from the reference on the same users.

Two kinds of chance are kept apart. Users: a metric is averaged over the training seeds for each user, and variants are
compared user by user. Training seeds: the spread of the mean over seeds stands beside it, and enters no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from mixrec_automl.cluster.baseline_training import PACKAGE
from mixrec_automl.cluster.study_training import read_test_ranks
from mixrec_automl.store.records import Search, Trial, TrialState
from trainers.baselines.floors import floors
from trainers.baselines.package import started_from
from trainers.data.sequence_data import SequenceData
from trainers.metrics import METRICS, per_user
from trainers.ranks import UserRanks, check_comparable
from trainers.slices import slices
from trainers.statistics import PairedDifference, holm, paired_differences

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Row:
    """One variant, or one floor, which has no seeds."""

    name: str
    seeds: tuple[int, ...]
    """Those that have been trained and tested."""
    validation_mrr: float | None
    """Mean over seeds of the best epoch's."""
    metrics: Mapping[str, float]
    """Test metrics, mean over users and seeds."""
    spread: Mapping[str, float]
    """Their standard deviation between seeds; empty for fewer than two."""
    differences: Mapping[str, PairedDifference]
    """To the reference, over the seeds that both have; empty where there are none, and for the reference itself."""
    adjusted_p: Mapping[str, float]
    """Holm's correction of the permutation test over all rows and metrics of the table."""
    by_slice: Mapping[str, tuple[int, float]]
    """Slice of the users -> their number and their test MRR."""
    started_from: str | None = None
    """As `trainers.baselines.baseline.Baseline.started_from`; None where no package says it."""


@dataclass(frozen=True)
class VariantRanks:
    """Ranks of one variant."""

    name: str
    ranks: Mapping[int, UserRanks]
    """By training seed; a floor's under seed -1"""
    validation_mrr: float | None
    started_from: str | None = None
    """As `Row.started_from`"""

    def values(self, metric: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """[U] the metric of each user, mean over `seeds`."""
        mean: NDArray[np.float64] = np.mean([per_user(self.ranks[seed])[metric] for seed in seeds], axis=0)
        return mean


_NO_SEED = -1


def study_rows(
    study: Search, trials: Sequence[Trial], folder: Path, data: SequenceData, *, exclude_seen: bool = False
) -> tuple[Row, ...]:
    """The table of a study: its variants in their order, then the floors.

    Args:
        folder: of the study's runs.
        data: what it was trained on, for the floors.

    Raises:
        UserError: the ranks of a completed trial are gone, or are of other users.
    """
    tested = variants_of(study, trials, folder, exclude_seen=exclude_seen)
    return compared(tested, data, study.config["study"]["reference"], exclude_seen=exclude_seen)


def variants_of(
    study: Search, trials: Sequence[Trial], folder: Path, *, exclude_seen: bool
) -> tuple[VariantRanks, ...]:
    """What has been tested of each variant. Arguments and errors are those of `study_rows`."""
    return tuple(_tested(name, trials, folder, exclude_seen) for name in study.config["study"]["variants"])


def compared(
    variants: Sequence[VariantRanks], data: SequenceData, reference: str, *, exclude_seen: bool = False
) -> tuple[Row, ...]:
    """One row for each of `variants`, then the floors, all beside the one called `reference`.

    Raises:
        UserError: they are of different users.
    """
    tested = [
        *variants,
        *(
            VariantRanks(floor.name, {_NO_SEED: floor.ranks}, None)
            for floor in floors(data, "test")
            if floor.exclude_seen is exclude_seen
        ),
    ]
    beside = next((one for one in tested if one.name == reference), None)
    rows = [_row(one) for one in tested]
    if beside is None:
        return tuple(rows)
    pairs = [
        (place, name, column)
        for place, one in enumerate(tested)
        if one is not beside
        for name, column in _differences(one, beside).items()
    ]
    if not pairs:
        return tuple(rows)
    # One call for the whole table: its columns share their draws.
    found = paired_differences(np.stack([column for _, _, column in pairs], axis=1), seed=BOOTSTRAP_SEED)
    adjusted = holm([difference.permutation_p for difference in found])
    for (place, name, _), difference, p in zip(pairs, found, adjusted, strict=True):
        row = rows[place]
        rows[place] = replace(
            row, differences={**row.differences, name: difference}, adjusted_p={**row.adjusted_p, name: p}
        )
    return tuple(rows)


def _tested(name: str, trials: Sequence[Trial], folder: Path, exclude_seen: bool) -> VariantRanks:
    completed = [trial for trial in trials if trial.variant == name and trial.state is TrialState.COMPLETED]
    folders = {trial.seed: folder / "trials" / str(trial.number) for trial in completed}
    ranks = {seed: read_test_ranks(own, exclude_seen=exclude_seen) for seed, own in folders.items()}
    starts = dict.fromkeys(filter(None, (started_from(own / PACKAGE) for own in folders.values())))
    known = [trial.mrr for trial in completed if trial.mrr is not None]
    return VariantRanks(name, ranks, fmean(known) if known else None, "; ".join(starts) or None)


def _row(one: VariantRanks) -> Row:
    """Without differences."""
    seeds = tuple(sorted(one.ranks))
    metrics: dict[str, float] = {}
    spread: dict[str, float] = {}
    by_slice: dict[str, tuple[int, float]] = {}
    if seeds:
        for name in METRICS:
            means = [float(per_user(one.ranks[seed])[name].mean()) for seed in seeds]
            metrics[name] = fmean(means)
            if len(means) > 1:
                spread[name] = stdev(means)
        values = one.values("mrr", seeds)
        by_slice = {
            name: (int(chosen.sum()), float(values[chosen].mean()))
            for name, chosen in slices(one.ranks[seeds[0]]).items()
            if chosen.any()
        }
    trained = tuple(seed for seed in seeds if seed != _NO_SEED)
    return Row(one.name, trained, one.validation_mrr, metrics, spread, {}, {}, by_slice, one.started_from)


def _differences(one: VariantRanks, reference: VariantRanks) -> dict[str, NDArray[np.float64]]:
    """Metric -> difference of each user [U], over the seeds that both have; a floor is compared with all seeds of the
    reference."""
    is_floor = set(one.ranks) == {_NO_SEED}
    common = sorted(reference.ranks) if is_floor else sorted(set(one.ranks) & set(reference.ranks))
    own = [_NO_SEED] if is_floor else common
    if not common:
        return {}
    check_comparable(one.ranks[own[0]], reference.ranks[common[0]])
    return {name: one.values(name, own) - reference.values(name, common) for name in METRICS}
