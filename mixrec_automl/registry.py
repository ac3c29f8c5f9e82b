"""The MLflow model registry: versions of promoted models, and the alias that serving follows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mixrec_automl
from mixrec_automl.tracking import set_mlflow_environment
from trainers.errors import UserError

set_mlflow_environment()  # before the import below

import mlflow  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema  # noqa: E402
from mlflow.types.schema import Array  # noqa: E402

CHAMPION = "champion"
PACKAGE = "package"
_CODE = Path(mixrec_automl.__file__).with_name("registry_model.py")
_PREFIX = "models:/"
TAG_DATA = "mixrec.data_fingerprint"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: str
    data_fingerprint: str
    """Of the data it was trained and tested on"""


def registered_name(data: str) -> str:
    """One registered model a data set: its versions compete for one alias."""
    return f"mixrec-{data}"


class Registry:
    """Versions and aliases at one tracking URI, which is also where the registry lies."""

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        if tracking_uri.startswith("sqlite:///"):
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def register(
        self, name: str, package: Path, run_id: str, example: list[str], data_fingerprint: str
    ) -> ModelVersion:
        """Log `package` to run `run_id` and register it as the next version of `name`.

        Args:
            example: a history of item identifiers, kept as the model's input example.
        """
        mlflow.set_tracking_uri(self._tracking_uri)
        signature = mlflow.models.ModelSignature(
            inputs=Schema([ColSpec(Array(DataType.string), "history")]),
            params=ParamSchema([ParamSpec("k", DataType.long, 10), ParamSpec("exclude_seen", DataType.boolean, False)]),
        )
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(_CODE),
                artifacts={PACKAGE: str(package)},
                registered_model_name=name,
                signature=signature,
                input_example=pd.DataFrame({"history": [example]}),
                pip_requirements=[f"mixrec-automl=={mixrec_automl.__version__}"],
            )
        version = str(logged.registered_model_version)
        self._client.set_model_version_tag(name, version, TAG_DATA, data_fingerprint)
        return ModelVersion(name, version, data_fingerprint)

    def champion(self, name: str) -> ModelVersion | None:
        """The version that the alias points to, or None where there is none yet."""
        try:
            found = self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException:
            return None
        return ModelVersion(name, str(found.version), found.tags.get(TAG_DATA, ""))

    def move_champion(self, version: ModelVersion) -> None:
        self._client.set_registered_model_alias(version.name, CHAMPION, version.version)

    def describe(self, version: ModelVersion, metrics: Mapping[str, str]) -> None:
        """Show `metrics` as tags of the version, where the registry's page lists them."""
        for key, value in metrics.items():
            self._client.set_model_version_tag(version.name, version.version, key, value)

    def fetch(self, model: str, folder: Path) -> Path:
        """The package of `model`: a registered name (its champion), `name@alias`, `name/version`, the same behind
        `models:/`, or the folder of a package itself.

        Args:
            folder: where files of a remote registry are put; those of a local one are used in place.

        Raises:
            UserError: no such model.
        """
        if Path(model).joinpath("model.json").is_file():
            return Path(model)
        reference = model.removeprefix(_PREFIX)
        if "@" not in reference and "/" not in reference:
            reference = f"{reference}@{CHAMPION}"
        mlflow.set_tracking_uri(self._tracking_uri)
        try:
            source = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{_PREFIX}{reference}/artifacts/{PACKAGE}", dst_path=str(folder)
            )
        except (MlflowException, OSError) as error:
            raise UserError(self._not_found(model, reference, error)) from error
        return Path(source)

    def _not_found(self, model: str, reference: str, error: Exception) -> str:
        names = sorted(found.name for found in self._client.search_registered_models())
        if not names:
            return f"no model {model!r}: none is registered yet; `mixrec-automl promote SEARCH` registers one"
        name = reference.split("@")[0].split("/")[0]
        if name not in names:
            return f"no model {model!r}; registered are {', '.join(names)}"
        reason = str(error).strip().splitlines()[0]
        return f"no model {model!r}: {name} has no such version or alias ({reason})"


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """For packages that are fetched, used and forgotten."""
    return tempfile.TemporaryDirectory(prefix="mixrec-model-")
