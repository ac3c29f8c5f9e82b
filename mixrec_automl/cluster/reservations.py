"""The cores and GPUs that Ray keeps for groups of workers, and those that nobody would ever give back.

Where the process of Ray Train that reserved them dies, it leaves them to one that asks Ray's dashboard, which an
embedded Ray does not have.
"""

from __future__ import annotations

from collections.abc import Iterable

import ray
from ray import PlacementGroupID
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
    remove_placement_group,
)


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
