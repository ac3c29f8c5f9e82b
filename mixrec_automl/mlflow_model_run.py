"""How a full training looks in MLflow: a run with curves, test metrics and per-user ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from mixrec_automl import paths
from mixrec_automl.full_training import FullTraining
from mixrec_automl.mlflow_refusal import refusal, refusal_told
from mixrec_automl.store.records import Promotion
from mixrec_automl.store.repository import Repository
from mixrec_automl.tracking import artifacts_folder, open_view, set_mlflow_environment
from trainers.errors import UserError, in_one_line

set_mlflow_environment()  # before the import below

from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

from mixrec_automl.mlflow_view import find_experiment, open_client  # noqa: E402

TAG_PROMOTION = "mixrec.promotion"
TAG_UPDATE = "mixrec.update"
TAG_PLAN = "mixrec.plan"
"""Its folder, which one process at a time holds"""
MOST_METRICS = 1000
"""That MLflow takes at once"""


class ModelRun:
    """One MLflow run of a full training. While MLflow is away the training goes on, and what it told waits."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.id = run_id
        self._waiting: list[Metric] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in metrics.items()]
        with contextlib.suppress(MlflowException):
            self._send()

    def keep(self, file: Path) -> None:
        """Store a file among the run's artifacts, and all that waits. Raises UserError: MLflow does not answer."""
        try:
            self._send()
            self._client.log_artifact(self.id, str(file))
        except (MlflowException, OSError) as error:  # the latter of a proxy that takes no large files
            raise refusal(error) or UserError(f"MLflow does not answer: {in_one_line(error)}") from error

    def finish(self) -> None:
        """Silent where MLflow is away: the model is registered by now, and the database knows it."""
        with contextlib.suppress(MlflowException):
            self._send()
            self._client.set_terminated(self.id, "FINISHED")

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self.id, metrics=self._waiting[:MOST_METRICS])
            del self._waiting[:MOST_METRICS]

    def abandon(self, status: str) -> None:
        """End as `KILLED` or `FAILED`; silent where MLflow itself is what failed: whoever abandons it has the error."""
        with contextlib.suppress(MlflowException):
            self._send()
            self._client.set_terminated(self.id, status)


@refusal_told()
def run_of_promotion(repository: Repository, promotion: Promotion, plan: FullTraining) -> ModelRun:
    """A run below that of its search, which is brought up to date. Raises MlflowRefusedError."""
    uri = paths.tracking_uri()
    view = open_view(repository, promotion.search, uri, artifacts_folder(promotion.search))
    view.update(repository)
    tags = {**view.child_tags(), TAG_PROMOTION: str(promotion.number)}
    name = f"promotion-{promotion.number}-of-{plan.what}"
    told = {"trial": promotion.trial, **dict(plan.design.settings)}
    return _begin(MlflowClient(tracking_uri=uri), view.experiment_id, name, tags, plan, told)


@refusal_told()
def run_of_update(model: str, plan: FullTraining) -> ModelRun:
    """A run in the experiment that is called as the registered `model`. Raises MlflowRefusedError."""
    uri = paths.tracking_uri()
    client = open_client(uri)
    experiment = find_experiment(client, model, uri, artifacts_folder(model))
    told = {"data": plan.config.data.name, "epochs": plan.config.training.epochs}
    return _begin(client, experiment, plan.what, {TAG_UPDATE: model}, plan, told)


def _begin(
    client: MlflowClient,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    plan: FullTraining,
    told: Mapping[str, object],
) -> ModelRun:
    same = f"tags.`{TAG_PLAN}` = '{plan.folder.name}'"
    for left in client.search_runs([experiment], f"attributes.status = 'RUNNING' AND {same}"):
        client.set_terminated(left.info.run_id, "KILLED")  # as its process was, which could not say so
    run_id = str(client.create_run(experiment, tags={**tags, TAG_PLAN: plan.folder.name}, run_name=name).info.run_id)
    told = {"architecture": plan.design.architecture, "seed": plan.seed, "began_with": plan.began_with, **told}
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in told.items()])
    return ModelRun(client, run_id)
