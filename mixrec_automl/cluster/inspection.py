"""What a Ray cluster has to offer, for `mixrec-automl doctor`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixrec_automl.cluster.ray_session import ray_session

ANSWER_SECONDS = 30.0
"""Within this each node runs a task that takes no time."""


@dataclass(frozen=True)
class ClusterFound:
    """What is there."""

    nodes: int
    cpus: float
    gpus: float
    without_home: tuple[str, ...]
    """Addresses of the nodes that do not see the home folder's files"""


def inspect_cluster(home: Path) -> ClusterFound:
    """Connect as a search would, and let every node look for a file in `home`, which has to be there.

    Raises:
        UserError: no cluster answers at `RAY_ADDRESS`.
    """
    with ray_session():
        nodes = [node for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
        mark = home / f".doctor-{secrets.token_hex(8)}"
        try:
            mark.touch()
        except OSError:  # no trouble of Ray's: the look at the home folder tells of it
            return ClusterFound(len(nodes), cpus, gpus, ())
        try:
            blind = [node["NodeManagerAddress"] for node in nodes if not _is_seen(mark, node["NodeID"])]
        finally:
            mark.unlink()
        return ClusterFound(len(nodes), cpus, gpus, tuple(blind))


def _is_seen(mark: Path, node: str) -> bool:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    asked = ray.remote(num_cpus=0)(_exists).options(scheduling_strategy=where, max_retries=0).remote(mark)
    try:
        return bool(ray.get(asked, timeout=ANSWER_SECONDS))
    except GetTimeoutError:
        return False


def _exists(path: Path) -> bool:
    return path.exists()
