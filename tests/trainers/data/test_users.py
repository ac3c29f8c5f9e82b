"""Data_BO: size, order, nesting, determinism."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.users import sample_users


@given(st.integers(2, 300), st.integers(1, 100), st.integers(1, 100), st.integers(0, 2**31))
def test_size_order_and_nesting(num_users: int, percent: int, other: int, seed: int) -> None:
    users = sample_users(num_users, percent / 100, seed)
    assert len(users) == max(2, math.ceil(Fraction(percent, 100) * num_users))
    assert users.dtype == np.int64
    assert (np.diff(users) > 0).all()
    assert users[0] >= 0
    assert users[-1] < num_users
    wider = sample_users(num_users, max(percent, other) / 100, seed)
    assert set(users.tolist()) <= set(wider.tolist())
    assert (sample_users(num_users, percent / 100, seed) == users).all()


def test_all_users_and_one_user() -> None:
    assert sample_users(5, 1.0, 3).tolist() == [0, 1, 2, 3, 4]
    assert sample_users(1, 0.1, 3).tolist() == [0]


def test_every_user_is_drawn_about_equally_often() -> None:
    drawn = np.bincount(np.concatenate([sample_users(20, 0.25, seed) for seed in range(2000)]), minlength=20)
    # 500 expected, standard deviation 19: five of them
    assert (abs(drawn - 500) < 97).all()


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_bad_share(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        sample_users(5, share, 0)
