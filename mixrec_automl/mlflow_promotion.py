"""How a promotion looks in MLflow: a child run of its search, with curves, test metrics and per-user ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from mixrec_automl import paths
from mixrec_automl.mlflow_refusal import refusal_told
from mixrec_automl.store.records import Promotion, Trial
from mixrec_automl.store.repository import Repository
from mixrec_automl.tracking import artifacts_folder, open_view, set_mlflow_environment

set_mlflow_environment()  # before the import below

from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

TAG_PROMOTION = "mixrec.promotion"


class PromotionRun:
    """One MLflow run of a promotion."""

    @refusal_told()
    def __init__(self, repository: Repository, promotion: Promotion, trial: Trial, began_with: str) -> None:
        """Brings MLflow up to date with the search, then opens a run below it. Raises MlflowRefusedError.

        Args:
            began_with: which weights the training began with, in words.
        """
        uri = paths.tracking_uri()
        view = open_view(repository, promotion.search, uri, artifacts_folder(promotion.search))
        view.update(repository)
        self._client = MlflowClient(tracking_uri=uri)
        tags = {**view.child_tags(), TAG_PROMOTION: str(promotion.number)}
        run = self._client.create_run(
            view.experiment_id, tags=tags, run_name=f"promotion-{promotion.number}-of-trial-{trial.number}"
        )
        self.id = str(run.info.run_id)
        told = {"architecture": trial.architecture, "trial": trial.number, "seed": trial.seed, "began_with": began_with}
        told |= dict(trial.design.settings)
        self._client.log_batch(self.id, params=[Param(key, str(value)) for key, value in told.items()])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def keep(self, file: Path) -> None:
        """Store a file among the run's artifacts."""
        self._client.log_artifact(self.id, str(file))

    def finish(self) -> None:
        self._client.set_terminated(self.id, "FINISHED")

    def abandon(self, status: str) -> None:
        """End as `KILLED` or `FAILED`; silent where MLflow itself is what failed, for the database has the error."""
        with contextlib.suppress(MlflowException):
            self._client.set_terminated(self.id, status)
