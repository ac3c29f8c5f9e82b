"""The summary against plain loops."""

from __future__ import annotations

import random
from itertools import chain

import numpy as np
import pytest

from trainers.data.sequence_data import Catalogue, SequenceData
from trainers.data.statistics import summarise


@pytest.mark.parametrize("history", [1, 3, 50])
def test_summary_equals_plain_loops(history: int) -> None:
    draw = random.Random(history)
    sequences = [[draw.randrange(9) for _ in range(draw.randint(3, 12))] for _ in range(30)]
    offsets = np.cumsum([0, *map(len, sequences)]).astype(np.int64)
    names = tuple(map(str, range(10)))
    data = SequenceData(
        offsets,
        np.array(list(chain(*sequences)), dtype=np.int32),
        tuple(map(str, range(30))),
        Catalogue(names, names, names),
        "",
    )
    got = summarise(data, history)
    training = [sequence[:-2] for sequence in sequences]
    every = sum(len(items) - 1 for items in training)
    kept = sum(min(len(items) - 1, history) for items in training)
    assert got.targets_kept == pytest.approx(kept / every)
    assert got.repeat_share == sum(sequence[-1] in sequence[:-1] for sequence in sequences) / 30
    assert 0 < got.repeat_share < 1
    assert got.training_interactions == sum(map(len, training))
    assert got.items_without_training == 10 - len(set(chain(*training)))
    lengths = sorted(map(len, sequences))
    assert (got.length_quantiles["0%"], got.length_quantiles["100%"]) == (lengths[0], lengths[-1])
    assert got.length_quantiles["50%"] == lengths[14]
