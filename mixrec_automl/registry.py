"""The MLflow model registry: versions of promoted models, and the alias that serving follows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mixrec_automl
from mixrec_automl.tracking import set_mlflow_environment
from trainers.errors import UserError, in_one_line

set_mlflow_environment()  # before the import below

import mlflow  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow.entities.model_registry import ModelVersion as MlflowVersion  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient, fluent  # noqa: E402
from mlflow.tracking._tracking_service import utils  # noqa: E402
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema  # noqa: E402
from mlflow.types.schema import Array  # noqa: E402

from mixrec_automl.mlflow_refusal import refusal  # noqa: E402
from mixrec_automl.mlflow_view import open_client  # noqa: E402

CHAMPION = "champion"
PACKAGE = "package"
_CODE = Path(mixrec_automl.__file__).with_name("registry_model.py")
_PREFIX = "models:/"
_URI = "MLFLOW_TRACKING_URI"
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_UNKNOWN = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""How MLflow says that there is no such model or version, and no such alias."""
TAG_DATA = "mixrec.data_fingerprint"
TAG_REPLACED = "mixrec.replaced"
"""Of a version that became champion: the one that was it before. MLflow keeps no history of an alias."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: str
    data_fingerprint: str
    """Of the data it was trained and tested on"""

    @property
    def reference(self) -> str:
        """What `Registry.find` finds it by."""
        return f"{self.name}/{self.version}"

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def registered_name(data: str) -> str:
    """One registered model a data set: its versions compete for one alias."""
    return f"mixrec-{data}"


def _no_answer(error: MlflowException | OSError) -> UserError:
    return refusal(error) or UserError(f"the model registry of MLflow does not answer: {in_one_line(error)}")


@contextmanager
def _answering() -> Iterator[None]:
    """Any error of MLflow's within means that the registry does not answer, or not as it should: a proxy before it that
    takes no large files, or a full disk, is an OSError."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise _no_answer(error) from error


@contextmanager
def _fluent(tracking_uri: str) -> Iterator[None]:
    """MLflow's functions work on what the process has set: a notebook of other work may have set something else, and
    finds it again afterwards."""
    # What was set, not what it amounts to: the environment, where that has the address, may change again.
    variable, uri, experiment = os.environ.get(_URI), utils._tracking_uri, fluent._active_experiment_id
    mlflow.set_tracking_uri(tracking_uri)
    fluent._active_experiment_id = None
    try:
        yield
    finally:
        mlflow.set_tracking_uri(uri)  # takes it out of the environment as well
        if variable is not None:
            os.environ[_URI] = variable
        fluent._active_experiment_id = experiment


class Registry:
    """Versions and aliases at one tracking URI, which is also where the registry lies."""

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri

    @cached_property
    def _client(self) -> MlflowClient:
        """Opened when first asked: a new SQLite database takes seconds to set up, which a mere folder need not cost."""
        return open_client(self._tracking_uri, self._tracking_uri)

    @_answering()
    def register(
        self, name: str, package: Path, run_id: str, example: list[str], data_fingerprint: str
    ) -> ModelVersion:
        """Log `package` to run `run_id` and register it as the next version of `name`.

        Args:
            example: a history of item identifiers, kept as the model's input example.

        Raises:
            UserError: the registry refuses, or does not answer.
        """
        signature = mlflow.models.ModelSignature(
            inputs=Schema([ColSpec(Array(DataType.string), "history")]),
            params=ParamSchema([ParamSpec("k", DataType.long, 10), ParamSpec("exclude_seen", DataType.boolean, False)]),
        )
        with _fluent(self._tracking_uri):
            with mlflow.start_run(run_id=run_id, nested=True):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(_CODE),
                    artifacts={PACKAGE: str(package)},
                    signature=signature,
                    input_example=pd.DataFrame({"history": [example]}),
                    pip_requirements=[f"mixrec-automl=={mixrec_automl.__version__}"],
                )
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != _EXISTS:
                    raise
            version = self._client.create_model_version(  # which looks for the logged model where the functions do
                name,
                source=logged.model_uri,
                run_id=run_id,
                model_id=logged.model_id,  # a server takes the source from whoever names its model alone
                tags={TAG_DATA: data_fingerprint},
            )
        return _as_version(version)

    def champion(self, name: str) -> ModelVersion | None:
        """The version that the alias points to, or None where there is none yet.

        Raises:
            UserError: the registry does not answer. To take that for "none" would let anything past the gate.
        """
        try:
            return _as_version(self._client.get_model_version_by_alias(name, CHAMPION))
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                return None
            raise _no_answer(error) from error

    def replace_champion(self, before: ModelVersion | None, version: ModelVersion) -> bool:
        """Make `version` the champion in place of `before`, and note which one it replaces.

        Returns:
            False where another one is champion by now, which stays.

        Raises:
            UserError: the registry refuses.
        """
        if self.champion(version.name) not in (before, version):
            return False
        with _answering():
            if before is not None and before != version:
                self._client.set_model_version_tag(version.name, version.version, TAG_REPLACED, before.version)
            self._client.set_registered_model_alias(version.name, CHAMPION, version.version)
        return True

    def roll_back(self, name: str) -> tuple[ModelVersion, ModelVersion]:
        """Make the version champion again that the champion of `name` replaced. Again: the one before that.

        Returns:
            The champion before and after.

        Raises:
            UserError: there is no champion, it replaced none, the one that it replaced is gone, or the registry does
                not answer.
        """
        champion = self.champion(name)
        if champion is None:
            raise UserError(f"{name} has no champion that could be rolled back")
        with _answering():
            tags = self._client.get_model_version(name, champion.version).tags
        if TAG_REPLACED not in tags:
            raise UserError(f"{champion} has replaced no other champion")
        before = self.find(f"{name}/{tags[TAG_REPLACED]}")
        self.check_files(before)  # a service would refuse it
        with _answering():
            self._client.set_registered_model_alias(name, CHAMPION, before.version)
        return champion, before

    def check_files(self, version: ModelVersion) -> None:
        """Raises UserError where its package is not there, or the registry does not answer."""
        uri = self._package_uri(version)
        try:
            files = mlflow.artifacts.list_artifacts(artifact_uri=uri, tracking_uri=self._tracking_uri)
        except (MlflowException, OSError) as error:
            raise _not_had(version, uri, error) from error
        if not files:
            raise UserError(f"{version}: there is no package (any more) at {uri}; promote it again")

    @_answering()
    def describe(self, version: ModelVersion, metrics: Mapping[str, str]) -> None:
        """Show `metrics` as tags of the version, where the registry's page lists them. Raises UserError."""
        for key, value in metrics.items():
            self._client.set_model_version_tag(version.name, version.version, key, value)

    def find(self, model: str) -> ModelVersion:
        """The version that `model` names now: a registered name (its champion), `name@alias`, `name/version`, or the
        same behind `models:/`.

        Raises:
            UserError: no such model, or the registry does not answer.
        """
        reference = model.removeprefix(_PREFIX)
        name, at, alias = reference.partition("@")
        version = ""
        if not at:
            name, _, version = reference.partition("/")
        try:
            if version:
                found = self._client.get_model_version(name, version)
            else:
                found = self._client.get_model_version_by_alias(name, alias or CHAMPION)
        except MlflowException as error:
            if error.error_code not in _UNKNOWN:
                raise _no_answer(error) from error
            with _answering():
                told = self._not_found(model, name)
            raise UserError(told) from error
        return _as_version(found)

    def fetch(self, found: ModelVersion, folder: Path) -> Path:
        """The package of a version.

        Args:
            folder: where files of a remote registry are put; those of a local one are used in place.

        Raises:
            UserError: its files are gone, or the registry does not answer.
        """
        uri = self._package_uri(found)
        # Given a destination, MLflow copies even the files of a local registry.
        is_local = uri.startswith(("file:", "/"))
        try:
            place = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=None if is_local else str(folder), tracking_uri=self._tracking_uri
            )
        except (MlflowException, OSError) as error:
            raise _not_had(found, uri, error) from error
        return Path(place)

    @_answering()
    def _package_uri(self, found: ModelVersion) -> str:
        return f"{self._client.get_model_version_download_uri(found.name, found.version)}/artifacts/{PACKAGE}"

    def _not_found(self, model: str, name: str) -> str:
        names = sorted(found.name for found in self._client.search_registered_models())
        if not names:
            return f"no model {model!r}: none is registered yet; `mixrec-automl promote SEARCH` registers one"
        if name not in names:
            return f"no model {model!r}; registered are {', '.join(names)}"
        versions = self._client.search_model_versions(f"name = '{name}'")
        known = [f"{name}/{found.version}" for found in sorted(versions, key=lambda found: int(found.version))]
        known += [f"{name}@{alias}" for alias in sorted(self._client.get_registered_model(name).aliases)]
        return f"no model {model!r}; known are {', '.join(known)}"


def _as_version(found: MlflowVersion) -> ModelVersion:
    return ModelVersion(found.name, str(found.version), found.tags.get(TAG_DATA, ""))


def _not_had(version: ModelVersion, uri: str, error: MlflowException | OSError) -> UserError:
    """MLflow tells files that are gone from a store that is away, if at all, in another way for each kind of store."""
    told = f"{version}: its package at {uri} cannot be had ({in_one_line(error)}); if it is gone, promote it again"
    return refusal(error) or UserError(told)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """For packages that are fetched, used and forgotten."""
    return tempfile.TemporaryDirectory(prefix="mixrec-model-")
