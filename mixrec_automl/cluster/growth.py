"""When a training that came up with fewer processes than it asked for is to go on with more.

Ray Train's own way ends all processes as soon as a machine joins, in the middle of an epoch that may take hours. Here
the training ends at its next epoch, and its successor asks Ray Train for as many as there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mixrec_automl.cluster.ray_session import room, spare
from mixrec_automl.search_config import ClusterConfig

SETTLE_SECONDS = 30.0
"""Room that has been there for so long is used: what Ray Train knows of the machines may be 20 seconds old. Twice as
long each next time, for Ray Train may count otherwise and start no more than before."""


class Growth:
    """Used from several threads: one looks every few seconds, those of the workers ask at the end of an epoch.

    Args:
        cluster: how many processes the training asks for, and the cores and GPUs of each.
        clock: seconds that never go back.
    """

    def __init__(self, cluster: ClusterConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = cluster.slots * cluster.workers_per_trial
        self._needs = (cluster.cpus_per_worker, cluster.gpus_per_worker)
        self._clock = clock
        self._settle = SETTLE_SECONDS
        self._room_since: float | None = None

    def look(self, up: int) -> None:
        """Compare the `up` processes that train with what the machines have now."""
        if not (0 < up < self._most and self._has_room(up)):
            self._room_since = None
        elif self._room_since is None:
            self._room_since = self._clock()

    def is_due(self) -> bool:
        """Whether the training is to make way now; the caller sees to it."""
        since = self._room_since
        if since is None or self._clock() - since < self._settle:
            return False
        self._room_since, self._settle = None, 2 * self._settle
        return True

    def _has_room(self, up: int) -> bool:
        """Whether more could be started than the `up` that train, and all of them at once."""
        # Ray Train starts as many as the nodes hold beside other trainings of its own, whoever else uses them. Were not
        # all of that free, the successor would wait for it, where the training goes on now.
        wanted = min(self._most, room(*self._needs))
        return up < wanted <= up + spare(*self._needs)
