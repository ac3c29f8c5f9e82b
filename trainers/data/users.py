"""Data_BO: the share of users that a search trains and scores its designs on (paper, 2.3.3 and Table 3)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import open_prepared

LEAST_USERS = 2
"""The factorisation behind the hard negatives has at most users - 1 dimensions (ruling 16)."""


def sample_users(num_users: int, share: float, seed: int) -> NDArray[np.int64]:
    """Draw ceil(share * num_users) users, at least two (or all there are), in rising order.

    The same seed nests: a larger share holds every user of a smaller one, so a design scored at two shares is
    compared on common users.

    Args:
        share: b, a fraction of the users in (0, 1] (section 1 of the digest).

    Raises:
        ValueError: share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of users must be above 0 and at most 1, not {share}")
    # The tolerance keeps 0.1 * 30 = 3.0000000000000004 from becoming four users.
    count = min(num_users, max(LEAST_USERS, math.ceil(share * num_users - 1e-9)))
    order = np.random.default_rng(seed).permutation(num_users)
    return np.sort(order[:count]).astype(np.int64)


def open_users(prepared: Path, share: float, seed: int) -> SequenceData:
    """The prepared data in folder `prepared`, with `sample_users` of them alone, over the whole catalogue.

    Raises:
        UserError: there is no such data.
    """
    full = open_prepared(prepared)
    users = sample_users(full.num_users, share, seed)
    return full if len(users) == full.num_users else full.select_users(users)
