"""Keeps MLflow up to date with the database, beside the search and never in its way.

The database is the truth and MLflow a view of it: `project` reads the one and writes what the other lacks, so that it
can run at any time, any number of times, and after any failure. MLflow takes seconds to import; this module does not
import it, the functions that need it do.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from mixrec_automl import paths
from mixrec_automl.mlflow_refusal import refusal_told
from mixrec_automl.store.repository import Repository
from trainers.errors import UserError, in_one_line
from trainers.secrecy import without_secrets

if TYPE_CHECKING:
    from mixrec_automl.mlflow_view import MlflowView

MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A dead server is asked again by the projector; MLflow's own seven retries would hold a caller for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # The server's job runner alone costs eight processes and two gigabytes, for features that are not used here.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # What a command prints is its own; MLflow's notes and bars would stand in between.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Defaults that are set before MLflow is imported or started; the user's own environment wins."""

LEAST_SECONDS_BETWEEN = 1.0
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 60.0
REPORT = "report"
"""Among the artifacts of a search's run"""
STUCK_SECONDS = 5.0
"""One round of updates takes a fraction of this; the first one, which imports MLflow, about as long."""

_log = logging.getLogger(__name__)


def set_mlflow_environment() -> None:
    """Call before the first import of MLflow in a process."""
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def artifacts_folder(search: str) -> Path:
    """Where MLflow's artifacts of `search` lie, unless a tracking server keeps them."""
    return paths.runs_folder() / search / "mlflow"


def open_view(repository: Repository, search: str, tracking_uri: str, artifacts: Path) -> MlflowView:
    """The MLflow side of `search`; imports MLflow. `artifacts` is as of `artifacts_folder`."""
    set_mlflow_environment()
    from mixrec_automl.mlflow_view import MlflowView

    return MlflowView.open(repository.search(search), tracking_uri, artifacts)


def project(repository: Repository, search: str, tracking_uri: str, artifacts: Path) -> None:
    """Bring MLflow up to date with `search` now, in this thread. Raises MlflowRefusedError, and what MLflow raises."""
    with refusal_told():
        shown = open_view(repository, search, tracking_uri, artifacts).update(repository)
    repository.note_tracking(search, None, shown)


def keep_report(repository: Repository, search: str, files: Sequence[Path]) -> None:
    """Store a report among the artifacts of the search's run, brought up to date.

    Raises MlflowRefusedError, and what MLflow raises.

    Args:
        files: the page, and its figures below its folder.
    """
    with refusal_told():
        view = open_view(repository, search, paths.tracking_uri(), artifacts_folder(search))
        view.update(repository)
        for file in files:
            below = file.parent.relative_to(files[0].parent)
            view.keep(file, (Path(REPORT) / below).as_posix())


def count_experiments(tracking_uri: str) -> int:
    """How many MLflow has, the deleted ones left out; makes its tables where there are none.

    Raises MlflowRefusedError, and what MLflow raises.
    """
    set_mlflow_environment()
    from mixrec_automl.mlflow_view import open_client

    with refusal_told():
        return len(open_client(tracking_uri).search_experiments())


class Projector:
    """Projects one search in a background thread: after each `wake`, and again later where MLflow fails.

    Args:
        holds_lease: whether the search is this process's still. Once it is not, nothing more is written: the runs that
            its next controller has made meanwhile are not known here, and would be made twice.
    """

    def __init__(
        self,
        repository: Repository,
        search: str,
        tracking_uri: str,
        artifacts: Path,
        holds_lease: Callable[[], bool],
    ) -> None:
        self._holds_lease = holds_lease
        self._repository = repository
        self._search = search
        self._tracking_uri = tracking_uri
        self._artifacts = artifacts
        self._view: MlflowView | None = None
        self._shown: int | None = None
        """Revision of the search up to which MLflow shows all, once it does."""
        self._error: str | None = None
        self._busy_since: float | None = None
        self._news, self._closing = Event(), Event()
        self._thread = Thread(target=self._run, name=f"mlflow-projector-{search}", daemon=True)

    def start(self) -> None:
        """Returns at once; MLflow is imported in the background."""
        self._news.set()
        self._thread.start()

    @property
    def is_stuck(self) -> bool:
        """Whether MLflow fails, or has not answered for a while."""
        since = self._busy_since
        return self._error is not None or (since is not None and time.monotonic() - since > STUCK_SECONDS)

    def wake(self) -> None:
        """There is something new in the database. Returns at once."""
        self._news.set()

    def close(self, timeout: float = 30.0) -> bool:
        """Project what the database holds now, then end.

        Returns:
            Whether MLflow shows all of it. If not, `project` (which `mixrec-automl ui` calls) catches up later.
        """
        self._closing.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        # Nothing is noted in the database, which may be what is waited for: it knows how far MLflow is behind.
        return self._error is None and not self._thread.is_alive()

    def _run(self) -> None:
        retry = FIRST_RETRY_SECONDS
        closing = False
        while not closing:
            self._news.wait()
            self._news.clear()
            # Read before projecting, so that all that was recorded before `close` is in the last round.
            closing = self._closing.is_set()
            self._busy_since = time.monotonic()
            try:
                if not self._holds_lease():
                    self._busy_since = self._error = None
                    return
                self._update()
            except Exception as error:  # MLflow, its database, its server or its disk: all are tried again
                self._view = None
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                reason = without_secrets(f"{kind}{in_one_line(error)}")
                if self._note_error(reason):
                    _log.warning("MLflow lags behind; the search goes on and MLflow is tried again (%s)", reason)
                self._busy_since = None
                self._news.set()
                self._closing.wait(retry)
                retry = min(2 * retry, LONGEST_RETRY_SECONDS)
            else:
                self._busy_since = None
                retry = FIRST_RETRY_SECONDS
                self._closing.wait(LEAST_SECONDS_BETWEEN)

    def _update(self) -> None:
        with refusal_told():
            if self._view is None:
                self._view = open_view(self._repository, self._search, self._tracking_uri, self._artifacts)
            shown = self._view.update(self._repository)
        if (shown, None) != (self._shown, self._error):
            self._repository.note_tracking(self._search, None, shown)
            if self._error is not None:
                _log.info("MLflow shows all of search %s again", self._search)
            self._shown, self._error = shown, None

    def _note_error(self, error: str) -> bool:
        """Leave word where `show` and `ui` find it; whether it is news."""
        if self._error is not None:
            return False
        self._error = error
        try:
            if not self._holds_lease():
                return False
            self._repository.note_tracking(self._search, error)
        except Exception as failure:  # the database is away too, and the search says so itself
            _log.warning("the state of MLflow could not be noted in the database: %s", without_secrets(str(failure)))
        return True
