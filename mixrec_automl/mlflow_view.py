"""How a search looks in MLflow: an experiment, a parent run for the search, a child run for each attempt of a trial.

Runs are found by their tags before they are created, metrics carry the time stamps of the database, and a run's status
is set last: whatever is interrupted is completed by the next `update`, and nothing is written twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mixrec_automl.store.records import (
    Observation,
    Search,
    SearchState,
    Trial,
    TrialState,
    best_trial,
    epochs_saved,
    last_epochs,
)
from mixrec_automl.store.repository import Repository
from search_spaces.design import shown

T = TypeVar("T")

TAG_SEARCH = "mixrec.search"
TAG_CREATED = "mixrec.created"
"""Tells apart two searches of one name in two databases that share an MLflow."""
TAG_TRIAL = "mixrec.trial"
TAG_ATTEMPT = "mixrec.attempt"
TAG_WRITTEN = "mixrec.written"
TAG_ERROR = "mixrec.error"
TAG_BEST = "mixrec.best_trial"
TAG_KILLED = "mixrec.killed"
"""Of a KILLED attempt: `pruned`, or `interrupted` where its worker was lost or the search stopped."""
TAG_REASON = "mixrec.reason"
"""Why it was pruned"""

PARENT_STATUS = {
    SearchState.RUNNING: RunStatus.RUNNING,
    SearchState.COMPLETED: RunStatus.FINISHED,
    SearchState.STOPPED: RunStatus.KILLED,
    SearchState.FAILED: RunStatus.FAILED,
}
CHILD_STATUS = {
    TrialState.QUEUED: RunStatus.KILLED,
    TrialState.RUNNING: RunStatus.RUNNING,
    TrialState.COMPLETED: RunStatus.FINISHED,
    TrialState.FAILED: RunStatus.FAILED,
    TrialState.PRUNED: RunStatus.KILLED,
}
"""Of the last attempt; a QUEUED trial that had one lost it, and all earlier attempts are KILLED."""

LARGEST_METRIC_BATCH, LARGEST_PARAM_BATCH = 1000, 100
"""What one call of MLflow's `log_batch` takes."""

for noisy in ("alembic", "mlflow.store.db.utils"):
    # They tell of every table that they make in a new MLflow database, and of every try to open one.
    logging.getLogger(noisy).setLevel(logging.ERROR)


def open_client(tracking_uri: str, registry_uri: str | None = None) -> MlflowClient:
    """Makes the folder of an SQLite file. Without `registry_uri` the registry is where MLflow's own settings say."""
    if tracking_uri.startswith("sqlite:///"):
        Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri)


def find_experiment(client: MlflowClient, name: str, tracking_uri: str, artifacts: Path) -> str:
    """The id of the experiment `name`, made or restored where it has to be.

    Args:
        artifacts: where a new one's lie, unless a tracking server keeps them.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        on_server = tracking_uri.startswith(("http://", "https://"))
        return str(
            client.create_experiment(name, artifact_location=None if on_server else artifacts.absolute().as_uri())
        )
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


@dataclass(frozen=True)
class _KnownRun:
    """What MLflow is known to hold of a run."""

    id: str
    status: int
    written: int
    """Cursor: epochs of a trial, or completed trials of a search, in the run's metrics; -1: not even its parameters."""

    @classmethod
    def read(cls, run: Run) -> _KnownRun:
        tags = run.data.tags
        return cls(run.info.run_id, RunStatus.from_string(run.info.status), int(tags.get(TAG_WRITTEN, -1)))


class MlflowView:
    """The MLflow side of one search; remembers what it wrote, so that an update costs only what is new.

    After an exception, open another one: it asks MLflow what is there.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, identity: Mapping[str, str]) -> None:
        self._client = client
        self.experiment_id = experiment_id
        self._identity = identity
        self._parent: _KnownRun | None = None
        self._children: dict[tuple[int, int], _KnownRun] = {}
        self._trials: dict[int, Trial] = {}
        self._best: str | None = None
        """`TAG_BEST` of the search's run"""
        self._revision = -1
        """The cursor: changes of the search up to this one have been written."""
        for run in self._runs_with({}):
            known, tags = _KnownRun.read(run), run.data.tags
            if TAG_TRIAL in tags:
                self._children[int(tags[TAG_TRIAL]), int(tags[TAG_ATTEMPT])] = known
            else:
                self._parent, self._best = known, tags.get(TAG_BEST)

    @classmethod
    def open(cls, search: Search, tracking_uri: str, artifacts: Path) -> MlflowView:
        """Finds or makes the experiment; asks MLflow which runs of this search exist."""
        client = open_client(tracking_uri)
        experiment_id = find_experiment(client, search.name, tracking_uri, artifacts)
        identity = {TAG_SEARCH: search.name, TAG_CREATED: search.created_at.isoformat()}
        return cls(client, experiment_id, identity)

    def update(self, repository: Repository) -> int:
        """Write what the database holds and MLflow lacks. Returns the revision of the search up to which it has all."""
        search = repository.search(self._identity[TAG_SEARCH])
        if search.revision == self._revision:
            return self._revision
        parent = self._parent or self._create_parent(search)
        # Trials before their epochs: a trial that is seen to have ended then has all its epochs.
        for trial in repository.trials(search.name, since=self._revision):
            self._trials[trial.number] = trial
            missing = [attempt for attempt in range(1, trial.attempt + 1) if not self._is_final(trial.number, attempt)]
            if missing:
                seen = repository.observations(search.name, trial.number)
                for attempt in missing:
                    own = [epoch for epoch in seen if epoch.attempt == attempt]
                    saved = epochs_saved([trial], last_epochs(seen), search.planned_epochs)
                    self._update_child(parent, trial, attempt, own, saved)
        self._parent = self._update_parent(parent, search, list(self._trials.values()))
        self._revision = search.revision
        return self._revision

    def child_tags(self) -> dict[str, str]:
        """Tags that make a run a child of the search's, once `update` has made that. A promotion's run carries them."""
        if self._parent is None:
            raise RuntimeError("update comes before child_tags")
        return {MLFLOW_PARENT_RUN_ID: self._parent.id}

    def keep(self, file: Path, folder: str) -> None:
        """Store `file` in `folder` among the artifacts of the search's run, once `update` has made that."""
        if self._parent is None:
            raise RuntimeError("update comes before keep")
        self._client.log_artifact(self._parent.id, str(file), folder)

    # The search

    def _create_parent(self, search: Search) -> _KnownRun:
        for known in self._runs_with({}):  # as in `_create_child`
            if TAG_TRIAL not in known.data.tags:
                self._parent, self._best = _KnownRun.read(known), known.data.tags.get(TAG_BEST)
                return self._parent
        created = self._client.create_run(
            self.experiment_id, _milliseconds(search.created_at), dict(self._identity), run_name=search.name
        )
        self._parent = _KnownRun.read(created)
        return self._parent

    def _update_parent(self, parent: _KnownRun, search: Search, trials: Sequence[Trial]) -> _KnownRun:
        if parent.written < 0:
            self._log(parent, params={"fingerprint": search.fingerprint, **_parent_params(search)})
            at = _milliseconds(search.created_at)
            self._log(parent, [Metric(f"floor_{name}", value, at, 0) for name, value in search.floors.items()])
            self._client.log_text(parent.id, yaml.safe_dump(dict(search.config), sort_keys=False), "config.yaml")
        completed = sorted((trial for trial in trials if trial.state is TrialState.COMPLETED), key=_end)
        metrics: list[Metric] = []
        for step, trial in enumerate(completed, start=1):
            if step > parent.written:
                at, best = _milliseconds(trial.finished_at), best_trial(_as_of(trial, trials)) or trial
                metrics += [Metric("best_mrr", best.mrr, at, step), Metric("mrr", trial.mrr, at, step)]
        tags: dict[str, object] = {TAG_WRITTEN: len(completed)} if len(completed) > parent.written else {}
        winner = best_trial(trials)
        if winner is not None and str(winner.number) != self._best:
            tags |= {TAG_BEST: winner.number, "mixrec.best_architecture": winner.architecture}
            tags |= {f"mixrec.best.{key}": shown(value) for key, value in winner.design.settings}
        status = PARENT_STATUS[search.state]
        if search.error is not None and status != parent.status:
            tags[TAG_ERROR] = search.error
        self._log(parent, metrics, tags=tags)
        self._best = None if winner is None else str(winner.number)
        if status != parent.status:
            self._set_status(parent, status, search.updated_at)
        return replace(parent, status=status, written=len(completed))

    # The trials

    def _is_final(self, number: int, attempt: int) -> bool:
        known = self._children.get((number, attempt))
        return known is not None and known.status != RunStatus.RUNNING

    def _update_child(
        self, parent: _KnownRun, trial: Trial, attempt: int, seen: Sequence[Observation], saved: int
    ) -> None:
        """`seen` are the epochs of the attempt; `saved` are those that the trial, if it was pruned, has been spared."""
        is_last = attempt == trial.attempt
        child = self._children.get((trial.number, attempt)) or self._create_child(parent, trial, attempt, seen)
        if child.written < 0:
            self._log(child, params=_child_params(trial))
        fresh = [epoch for epoch in seen if epoch.epoch > child.written]
        metrics = [
            Metric(name, value, _milliseconds(epoch.recorded_at), epoch.epoch)
            for epoch in fresh
            for name, value in epoch.metrics.items()
        ]
        written = max([child.written, 0, *(epoch.epoch for epoch in fresh)])
        tags: dict[str, object] = {} if written == child.written else {TAG_WRITTEN: written}
        status = CHILD_STATUS[trial.state] if is_last else RunStatus.KILLED
        is_pruned = is_last and trial.state is TrialState.PRUNED
        if status == RunStatus.KILLED:
            tags[TAG_KILLED] = "pruned" if is_pruned else "interrupted"
        if is_pruned and trial.error is not None:
            tags[TAG_REASON] = trial.error
        end = trial.finished_at if is_last else None
        if end is not None and trial.started_at is not None:
            last_step = seen[-1].epoch if seen else 0
            results = {
                "mrr": trial.mrr,
                "standard_error": trial.standard_error,
                "seconds": (end - trial.started_at).total_seconds(),
                "proposal_seconds": trial.proposal_seconds,
                "epochs_saved": saved if is_pruned else None,
                **trial.metrics,
            }
            metrics += [
                Metric(name, value, _milliseconds(end), last_step)
                for name, value in results.items()
                if value is not None
            ]
        # Of a trial that has not FAILED, the error is that of the attempt before the one that runs or waits to run.
        of_error = trial.attempt if trial.state in (TrialState.FAILED, TrialState.QUEUED) else trial.attempt - 1
        if attempt == of_error and trial.error is not None and trial.state is not TrialState.PRUNED:
            tags[TAG_ERROR] = (trial.error.strip().splitlines() or [""])[-1]
            self._client.log_text(child.id, trial.error, "error.txt")
        self._log(child, metrics, tags=tags)
        if status != RunStatus.RUNNING:
            self._set_status(child, status, end or (seen[-1].recorded_at if seen else trial.created_at))
        self._children[trial.number, attempt] = replace(child, status=status, written=written)

    def _create_child(self, parent: _KnownRun, trial: Trial, attempt: int, seen: Sequence[Observation]) -> _KnownRun:
        started = trial.started_at if attempt == trial.attempt else None
        start = started or (seen[0].recorded_at if seen else trial.created_at)
        tags = {MLFLOW_PARENT_RUN_ID: parent.id, TAG_TRIAL: str(trial.number), TAG_ATTEMPT: str(attempt)}
        name = f"trial-{trial.number:03d}" + (f"-attempt-{attempt}" if attempt > 1 else "")
        # Whoever made it since this view was opened, such as the next controller of a process that stood still.
        for known in self._runs_with({TAG_TRIAL: str(trial.number), TAG_ATTEMPT: str(attempt)}):
            child = self._children[trial.number, attempt] = _KnownRun.read(known)
            return child
        created = self._client.create_run(
            self.experiment_id, _milliseconds(start), {**self._identity, **tags}, run_name=name
        )
        child = _KnownRun.read(created)
        self._children[trial.number, attempt] = child
        return child

    # MLflow

    def _runs_with(self, tags: Mapping[str, str]) -> Iterator[Run]:
        """All runs of this search that carry `tags`, the oldest first."""
        wanted = {**self._identity, **tags}
        where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], where, max_results=1000, order_by=["attributes.start_time"], page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _log(
        self,
        run: _KnownRun,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        for part in _parts(metrics, LARGEST_METRIC_BATCH):
            self._client.log_batch(run.id, metrics=part)
        for part in _parts([Param(key, value) for key, value in (params or {}).items()], LARGEST_PARAM_BATCH):
            self._client.log_batch(run.id, params=part)
        if tags:  # last, as they hold the cursor
            self._client.log_batch(run.id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def _set_status(self, run: _KnownRun, status: int, at: datetime | None) -> None:
        name = RunStatus.to_string(status)
        if status == RunStatus.RUNNING:
            self._client.update_run(run.id, status=name)
        else:
            self._client.set_terminated(run.id, name, None if at is None else _milliseconds(at))


def _parent_params(search: Search) -> dict[str, str]:
    """The configuration; of a study its name alone, as MLflow refuses some names of variants in a parameter."""
    config = {key: value for key, value in search.config.items() if key != "study"}
    study = search.config.get("study")
    return dict(_flat(config)) | ({} if study is None else {"study": study["name"]})


def _child_params(trial: Trial) -> dict[str, str]:
    return {
        "architecture": str(trial.architecture),
        "bits": "".join(map(str, trial.architecture.bits)),
        "layers": str(len(trial.architecture.layers)),
        **{key: str(value) for key, value in trial.design.settings},
        "seed": str(trial.seed),
        "origin": trial.origin,
        **({"variant": trial.variant} if trial.variant else {}),
    }


def _end(trial: Trial) -> tuple[int, int]:
    """Sorts trials by when they ended."""
    return _milliseconds(trial.finished_at) or 0, trial.number


def _as_of(moment: Trial, trials: Sequence[Trial]) -> Iterator[Trial]:
    """The trials as they stood when `moment` ended: what ended later still ran. So a late update writes no other
    history than one at that moment."""
    for trial in trials:
        is_later = trial.state.is_final and _end(trial) > _end(moment)
        yield replace(trial, state=TrialState.RUNNING, mrr=None) if is_later else trial


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[first : first + size] for first in range(0, len(values), size))


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`{"a": {"b": 1}}` -> `("a.b", "1")`; what is None is left out."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)
