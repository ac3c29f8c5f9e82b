"""Looks at what a search needs and says what to do about what is missing: `mixrec-automl doctor`.

Nothing is changed: the database and MLflow's are made where there are none, as by any other command.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from types import MappingProxyType

from packaging.requirements import Requirement

from mixrec_automl import paths
from trainers.errors import UserError, in_one_line
from trainers.secrecy import without_secrets

PACKAGE = "mixrec-automl"
SHOWN_VERSIONS = ("torch", "ray", "mlflow", "ax-platform", "transformers")
LEAST_FREE_BYTES = 2 * 10**9
"""Backbone, data and MLflow of the main job take a tenth of a gigabyte, those of a larger backbone several."""


class Level(StrEnum):
    """How well it stands."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    what: str
    level: Level
    found: str
    remedy: str = ""
    """What to do; empty where all is well"""


def examine() -> Iterator[Finding]:
    """One finding after another; a check that fails is a finding too."""
    for what, check in CHECKS.items():
        try:
            level, found, remedy = check()
        except UserError as error:
            level, found, remedy = Level.BROKEN, _in_a_line(error), ""
        except Exception as error:  # whatever a service's client raises
            level, found, remedy = Level.BROKEN, f"{type(error).__name__}: {_in_a_line(error)}", ""
        yield Finding(what, level, found, remedy or ("" if level is Level.OK else REMEDIES.get(what, "")))


Outcome = tuple[Level, str, str]


def _packages() -> Outcome:
    wrong = []
    for text in requires(PACKAGE) or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} {there}, where {requirement.specifier} is needed")
    if wrong:
        return Level.BROKEN, "; ".join(wrong), ""
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN_VERSIONS)
    return Level.OK, f"{PACKAGE} {version(PACKAGE)} on Python {platform.python_version()}: {shown}", ""


def _home() -> Outcome:
    home = paths.home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-"):
            pass
    except OSError as error:
        return Level.BROKEN, f"cannot write to {home}: {error.strerror}", ""
    free = shutil.disk_usage(home).free
    level = Level.OK if free >= LEAST_FREE_BYTES else Level.WARNING
    return level, f"{home}, {free / 1e9:.1f} GB free", ""


def _database() -> Outcome:
    from mixrec_automl.store.errors import WrongRevisionError
    from mixrec_automl.store.records import SearchState
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.store.schema import HEAD

    began = time.monotonic()
    try:
        repository = Repository.open()
    except WrongRevisionError as error:
        return Level.BROKEN, error.found, error.remedy
    searches = repository.searches()
    repository.close()
    held = f"revision {HEAD}, {_count(len(searches), 'search', 'searches')}"
    found = f"{without_secrets(paths.database_url())}, {held}"
    orphans = [one.name for one in searches if one.state is SearchState.RUNNING and one.controller is None]
    if orphans:
        return Level.WARNING, f"{found}; interrupted: {', '.join(orphans)}", f"mixrec-automl show {orphans[0]}"
    return Level.OK, f"{found}, answers in {1000 * (time.monotonic() - began):.0f} ms", ""


def _tracking() -> Outcome:
    from mixrec_automl.mlflow_refusal import MlflowRefusedError
    from mixrec_automl.tracking import count_experiments

    uri = paths.tracking_uri()
    try:
        count = count_experiments(uri)
    except MlflowRefusedError as error:
        return Level.BROKEN, f"{without_secrets(uri)}: {error.found}", error.remedy
    return Level.OK, f"{without_secrets(uri)}, {_count(count, 'experiment')}", ""


def _ray() -> Outcome:
    from mixrec_automl.cluster.inspection import inspect_cluster

    address = os.environ.get("RAY_ADDRESS")
    found = inspect_cluster(paths.home())
    where = f"the cluster at {address}, {_count(found.nodes, 'node')}" if address else "one of its own on this machine"
    told = f"{where}: {_count(found.cpus, 'CPU')}, {_count(found.gpus, 'GPU')}"
    if found.nodes > 1 and paths.database_url().startswith("sqlite"):
        remedy = "export MIXREC_DATABASE_URL=postgresql+psycopg://USER@HOST/DATABASE"
        return Level.BROKEN, f"{told}; SQLite serves one machine alone", remedy
    if found.without_home:
        remedy = "export MIXREC_HOME=FOLDER, one that all nodes reach under the same name"
        return Level.BROKEN, f"{told}; no {paths.home()} on {', '.join(found.without_home)}", remedy
    return Level.OK, told, ""


def _device() -> Outcome:
    import torch

    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return Level.OK, ", ".join(f"{one.name}, {one.total_memory / 1e9:.0f} GB" for one in found), ""
    if shutil.which("nvidia-smi"):
        return Level.WARNING, f"this machine has a GPU that torch {torch.__version__} cannot use", ""
    return Level.OK, f"no GPU; {_count(torch.get_num_threads(), 'thread')} of the CPU", ""


def _data() -> Outcome:
    from trainers.data.errors import DataError
    from trainers.data.store_format import read_manifest

    names, damaged = paths.prepared_names(), []
    for name in names:
        try:
            read_manifest(paths.data_folder(name))
        except DataError:
            damaged.append(name)
    if damaged:
        return Level.WARNING, f"damaged: {', '.join(damaged)}", f"mixrec-automl data prepare {damaged[0]}"
    return Level.OK, ", ".join(names) or "none prepared yet: `mixrec-automl data list` tells what there is", ""


CHECKS: Mapping[str, Callable[[], Outcome]] = MappingProxyType(
    {
        "packages": _packages,
        "home folder": _home,
        "database": _database,
        "MLflow": _tracking,
        "Ray": _ray,
        "device": _device,
        "data": _data,
    }
)
REMEDIES = MappingProxyType(
    {
        "packages": "make install",
        "home folder": "export MIXREC_HOME=FOLDER, a folder with room",
        "database": "export MIXREC_DATABASE_URL=..., or unset it for SQLite in the home folder",
        "MLflow": "export MLFLOW_TRACKING_URI=..., or unset it for SQLite in the home folder",
        "Ray": "export RAY_ADDRESS=HOST:6379, or unset it for Ray on this machine",
        "device": "pip install torch, from the index for your CUDA: https://pytorch.org/get-started/locally",
    }
)
"""Where a check has none of its own"""


def _count(number: float, one: str, more: str | None = None) -> str:
    return f"{number:g} {one if number == 1 else more or one + 's'}"


def _in_a_line(error: Exception) -> str:
    return without_secrets(in_one_line(error))
