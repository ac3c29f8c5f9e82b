"""`mixrec-automl ui`: MLflow's own web page on what was searched here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mixrec_automl import paths
from mixrec_automl.interruption import raise_on_signals
from trainers.errors import UserError
from trainers.secrecy import without_secrets

if TYPE_CHECKING:
    from mixrec_automl.store.repository import Repository

EXAMPLE = "Example: mixrec-automl ui --port 5001"
HOST = "127.0.0.1"
START_SECONDS = 90


def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000) -> None:
    """Serve MLflow on all searches at http://127.0.0.1:PORT, until Ctrl-C."""
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.tracking import MLFLOW_ENVIRONMENT

    uri = paths.tracking_uri()
    on_server = uri.startswith(("http://", "https://"))
    if not on_server:
        check_free(HOST, port)
    _catch_up(Repository.open(), uri)
    if on_server:
        typer.echo(f"MLflow runs at {without_secrets(uri)}")
        return
    artifacts = (paths.home() / "mlflow-artifacts").as_uri()  # of experiments that are not ours
    paths.home().mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--default-artifact-root", artifacts, "--host", HOST,
         "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"],
        cwd=paths.home(),
        # The address by environment: it may hold a password, and everybody can read a command line.
        env={**MLFLOW_ENVIRONMENT, "PYTHONWARNINGS": "ignore", **os.environ, "MLFLOW_BACKEND_STORE_URI": uri},
        start_new_session=True,
    )  # fmt: skip
    try:
        with raise_on_signals():  # a lost terminal among them, which would leave the server behind
            _wait_until_up(server, port)
            typer.echo(f"MLflow: http://{HOST}:{port}   (Ctrl-C ends it)")
            server.wait()
    except KeyboardInterrupt:
        typer.echo("MLflow ended")
    finally:
        # The server is a small family of processes: all of them go.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def check_free(host: str, port: int) -> None:
    """Raise UserError where `port` cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"port {port} of {host} is taken or not allowed: choose another with --port") from error


def _catch_up(repository: Repository, uri: str) -> None:
    """Write what an outage of MLflow kept out of it. A search that a process runs is left to that process."""
    from mixrec_automl.tracking import artifacts_folder, project

    for search in repository.searches():
        if search.changes_not_tracked and search.controller is None:
            try:
                project(repository, search.name, uri, artifacts_folder(search.name))
            except Exception as error:  # MLflow may still be down; the page is useful without it
                typer.echo(
                    f"warning: MLflow still lags behind search {search.name}: {without_secrets(str(error))}", err=True
                )


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise UserError(f"MLflow's server ended with exit code {server.returncode}; its messages stand above")
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
            return
        time.sleep(0.2)
    raise UserError(f"MLflow's server did not answer within {START_SECONDS} s")
