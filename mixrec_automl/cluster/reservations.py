"""The cores and GPUs that Ray keeps for groups of workers, and those that nobody would ever give back.

Where the process of Ray Train that reserved them dies, it leaves them to one that asks Ray's dashboard, which an
embedded Ray does not have. What it had asked for counts as taken for three minutes more.
"""

from __future__ import annotations

from collections.abc import Iterable

import ray
from ray import PlacementGroupID
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
    remove_placement_group,
)

COORDINATOR = "AutoscalingCoordinator"
"""Ray's actor that is told how many workers each run of Ray Train wants, and allots them to one of any number."""
ANSWER_SECONDS = 2.0


def mine() -> str:
    """The reservation that this process runs in."""
    found: PlacementGroup = get_current_placement_group()
    return str(found.id.hex())


def all_of_this_job() -> set[str]:
    """Those of the driver that this process belongs to: the ID of a job ends those of its reservations."""
    job = ray.get_runtime_context().get_job_id()
    return {
        name for name, found in placement_group_table().items() if name.endswith(job) and found["state"] != "REMOVED"
    }


def give_back(reservations: Iterable[str]) -> None:
    """End them, and all that runs in them."""
    for name in reservations:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def withdraw(runs: Iterable[str]) -> None:
    """Let nothing count as taken by these runs of Ray Train, which have been killed: one that ends does so itself."""
    try:
        coordinator = ray.get_actor(COORDINATOR, namespace=COORDINATOR)
        ray.get([coordinator.cancel_request.remote(f"train-{run}") for run in runs], timeout=ANSWER_SECONDS)
    except (ValueError, RayError):  # there is none, or Ray itself is gone
        pass
