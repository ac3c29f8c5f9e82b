"""Searches as jobs of a Ray cluster that somebody else keeps up: handed in, read, and found again by name."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from mixrec_automl.cluster.ray_errors import last_line, token_missing
from trainers.errors import UserError

PREFIX = "mixrec"
POLL_SECONDS, PATIENCE = 1.0, 120.0
ANSWER_SECONDS = 30.0
"""Within this the dashboard answers, or is taken to be away"""
MOST_NODES = 10_000
"""That Ray tells of where it is asked for so many"""
_NODE_ID = "ray.io/node-id"
_TROUBLES = (OSError, LookupError, RuntimeError, ValueError, RayError, RayStateApiException)
"""What Ray's clients raise where the dashboard is away, refuses, or is none; those of `requests` are OSErrors"""


@dataclass(frozen=True)
class Job:
    """One run of a search's controller on the cluster."""

    identifier: str
    """`mixrec-NAME-N`: the N-th job of search NAME"""
    state: str
    """As Ray calls it: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED"""
    message: str
    """What Ray says of it"""

    @property
    def is_over(self) -> bool:
        return bool(JobStatus(self.state).is_terminal())


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own waits for ever for a head that stands still."""

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": ANSWER_SECONDS, **kwargs})


class Jobs:
    """The jobs of the cluster whose dashboard answers at `address`, such as `http://127.0.0.1:8265`.

    Nothing secret is sent: addresses and tokens of database and MLflow are in the environment of the cluster's nodes.

    Raises:
        UserError: nothing answers there, or it is another version of Ray.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise UserError(f"{address!r} is no address of a dashboard: give it as http://HOST:8265")
        self._address = address
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # which, like RAY_ADDRESS, Ray's client puts before its argument
        try:
            self._client = _Client(address)
            self._client.list_jobs()  # shows the token, where there is one
        except AuthenticationError as error:
            raise token_missing(address) from error
        except _TROUBLES as error:
            raise UserError(f"no dashboard of a Ray cluster answers at {address}: {last_line(error)}") from error

    def newest(self, search: str) -> Job | None:
        """The last job of `search`, or None."""
        jobs = self._of(search)
        return jobs[max(jobs)] if jobs else None

    def submit(
        self, search: str, command: Sequence[str], files: Mapping[str, str], variables: Mapping[str, str]
    ) -> Job:
        """Run `command` beside `files` (text by name) and with `variables` in its environment as the next job of
        `search`, away from the head where there is another node.

        If two processes submit the same search at once, one job comes of it.
        """
        number = max(self._of(search), default=0) + 1
        identifier = f"{PREFIX}-{search}-{number}"
        selector = self._away_from_head()
        logging.disable(logging.INFO)  # Ray tells of each upload, whatever the level of its loggers
        with TemporaryDirectory() as folder:
            for name, text in files.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=identifier,
                    runtime_env={"env_vars": dict(variables)} | ({"working_dir": folder} if files else {}),
                    entrypoint_label_selector=selector,
                )
            except _TROUBLES as error:
                if number not in self._of(search):
                    raise UserError(f"the cluster at {self._address} takes no job: {last_line(error)}") from error
        return self._of(search)[number]

    def log(self, job: Job) -> str:
        """What it has printed so far."""
        try:
            return str(self._client.get_job_logs(job.identifier))
        except _TROUBLES as error:
            raise UserError(f"the cluster at {self._address} does not give the log: {last_line(error)}") from error

    def follow(self, job: Job, show: Callable[[str], None]) -> Job:
        """Hand what it prints to `show` until it is over. Returns it as it ended.

        A dashboard that does not answer for less than `PATIENCE` seconds is waited for: its head may be restarting.

        Raises:
            UserError: it stayed away.
        """
        # Read again and again, not tailed: a tail ends with any hiccup of the connection, and would begin anew.
        seen, answered = 0, time.monotonic()
        while True:
            over: Job | None = None
            try:
                found = self._client.get_job_info(job.identifier)
                now = _job(found)
                over = now if now.is_over else None
                text = str(self._client.get_job_logs(job.identifier))
            except _TROUBLES as error:
                if over:  # its log went with its node
                    return over
                if time.monotonic() - answered > PATIENCE:
                    reason = last_line(error)
                    raise UserError(f"the dashboard at {self._address} answers no longer: {reason}") from error
            else:
                answered = time.monotonic()
                show(text[seen:])
                seen = len(text)
                if over:
                    return over
            time.sleep(POLL_SECONDS)

    def _of(self, search: str) -> dict[int, Job]:
        """By number."""
        found = {}
        try:
            jobs = self._client.list_jobs()
        except _TROUBLES as error:
            raise UserError(f"the cluster at {self._address} does not list its jobs: {last_line(error)}") from error
        for details in jobs:
            name, _, number = (details.submission_id or "").rpartition("-")
            if name == f"{PREFIX}-{search}" and number.isdecimal():
                found[int(number)] = _job(details)
        return found

    def _away_from_head(self) -> dict[str, str] | None:
        """The head, without which nothing runs, is not burdened with a controller, unless it is the only node."""
        try:
            nodes = list_nodes(
                address=self._address,
                filters=[("state", "=", "ALIVE")],
                limit=MOST_NODES,
                raise_on_missing_output=False,
            )
        except _TROUBLES as error:
            raise UserError(f"the nodes of the cluster at {self._address} are not told: {last_line(error)}") from error
        heads = [node.node_id for node in nodes if node.is_head_node]
        return {_NODE_ID: f"!{heads[0]}"} if heads and len(nodes) > len(heads) else None


def _job(details: JobDetails) -> Job:
    return Job(str(details.submission_id), str(details.status), details.message or "")
