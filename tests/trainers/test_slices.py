"""Slices against the definition, user by user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.trainers.test_ranks import sequences as given_sequences
from trainers.baselines.popularity import popularity
from trainers.ranks import Setting, evaluate_scores
from trainers.slices import slices


def test_each_user_is_where_it_belongs() -> None:
    data = given_sequences([0, 1, 2, 3], [0, 1, 0, 2], [4, 0, 1, 5, 2, 0, 1], items=8)
    (ranks,) = evaluate_scores(data, [Setting("test")], popularity(data))
    ranks = replace(
        ranks,
        history_length=np.array([4, 5, 10]),
        popularity=np.array([0, 1, 7]),
        cold=np.array([True, False, False]),
        repeat=np.array([False, False, True]),
    )
    found = {name: chosen.tolist() for name, chosen in slices(ranks).items()}
    assert found == {
        "history up to 4": [True, False, False],
        "history 5 to 9": [False, True, False],
        "history from 10": [False, False, True],
        "popular target": [False, False, True],
        "tail target": [True, True, False],
        "cold target": [True, False, False],
        "repeat": [False, False, True],
        "no repeat": [True, True, False],
    }
