"""A connection to Ray that leaves nothing behind: an embedded cluster, or the one that `RAY_ADDRESS` names."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import AuthenticationError

from mixrec_automl.cluster.ray_errors import token_missing
from mixrec_automl.cluster.ray_folder import ray_folder
from mixrec_automl.fair_share import Machine, sharers_of_a_gpu
from mixrec_automl.search_config import ClusterConfig
from trainers.errors import UserError

OBJECT_STORE_BYTES = 512 * 2**20
"""Only small messages pass through the object store; data and backbone are read from disk by each worker."""
ANSWER_SECONDS = 10.0
"""Within this a cluster's head takes a connection."""


@contextmanager
def ray_session() -> Iterator[Path | None]:
    """Connect for the duration of the context; an embedded Ray and its files are gone afterwards.

    Yields:
        A folder for what is of no use beyond the context; None where other machines would have to reach it as well.

    Raises:
        UserError: the cluster at `RAY_ADDRESS` does not answer.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address:
        refuse_a_silent_port(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except AuthenticationError as error:
            raise token_missing(f"RAY_ADDRESS={address}") from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error
        try:
            yield None
        finally:
            ray.shutdown()
        return
    with ray_folder() as folder:
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(folder),
            )
            yield folder
        finally:
            ray.shutdown()


def refuse_a_silent_port(address: str) -> None:
    """Raise UserError where nobody listens there. Ray itself would try for many minutes, and tell of each try."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # as "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error.strerror or error}") from error


def check_one_machine(reason: str) -> None:
    """Refuse a cluster of several nodes. Raises UserError, which gives `reason`."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1:
        raise UserError(f"this Ray cluster has {nodes} nodes, but {reason}")


def check_resources(cluster: ClusterConfig, fewest_workers: int | None = None) -> None:
    """Refuse what would wait for ever.

    Args:
        fewest_workers: of a trial, where it may begin with less than all.

    Raises:
        UserError: the nodes have too few CPUs or GPUs for all slots at once; says what is there and what is missing.
    """
    workers = fewest_workers or cluster.workers_per_trial
    fit = room(cluster.cpus_per_worker, cluster.gpus_per_worker)
    if fit >= cluster.slots * workers:
        return
    needed = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    nodes = _resources()
    there = ", ".join(f"{sum(node.get(name, 0) for node in nodes):g} {name}s" for name in ("CPU", "GPU"))
    each = " and ".join(f"{amount:g} {name}" + "s" * (amount != 1) for name, amount in needed.items() if amount)
    raise UserError(
        f"cluster.slots x cluster.workers_per_trial = {cluster.slots} x {workers} processes with "
        f"{each} each do not fit: {len(nodes)} node(s) with {there} hold {fit}. "
        f"Lower cluster.slots, cluster.workers_per_trial or cluster.cpus_per_worker, or connect more machines"
    )


def fitting(cluster: ClusterConfig, fewest_workers: int | None) -> ClusterConfig:
    """`cluster` with as many CPUs a process as the nodes have room for, at most those that it names.

    Args:
        fewest_workers: as `check_resources`.

    Raises:
        UserError: as `check_resources`; not even one CPU a process is there.
    """
    workers = cluster.slots * cluster.workers_per_trial
    cpus = (cpus for cpus in range(cluster.cpus_per_worker, 1, -1) if room(cpus, cluster.gpus_per_worker) >= workers)
    fitted = replace(cluster, cpus_per_worker=next(cpus, 1))
    check_resources(fitted, fewest_workers)
    return fitted


def room(cpus: float, gpus: float) -> int:
    """How many processes with `cpus` (above 0) and `gpus` each the nodes could hold, were they idle."""
    return sum(_held(node, cpus, gpus) for node in _resources())


def spare(cpus: float, gpus: float) -> int:
    """How many more such processes the nodes have room for beside all that runs; a GPU in use counts for none."""
    return sum(_held(node, cpus, gpus) for node in available_resources_per_node().values())


def machines() -> tuple[Machine, ...]:
    """What each node offers, used or not; in an order that is the same for all who ask."""
    found = (Machine(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in _resources())
    return tuple(sorted(found, key=lambda machine: (machine.cpus, machine.gpus)))


def cluster_name() -> str:
    """Of the Ray cluster that this process is connected to: the same for all who are, and no other cluster's."""
    return str(ray.get_runtime_context().get_session_name())


def _held(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    of_cpus, there = math.floor(resources.get("CPU", 0) / cpus), resources.get("GPU", 0)
    if not gpus:
        return of_cpus
    return min(of_cpus, int(there) * sharers_of_a_gpu(gpus) if gpus < 1 else int(there // gpus))


def _resources() -> list[dict[str, float]]:
    """Of each node that lives."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
