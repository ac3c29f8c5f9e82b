"""An MLflow server of the tests' own: a real family of processes that can be killed, frozen and started again."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from mixrec_automl.tracking import MLFLOW_ENVIRONMENT
from tests.ports import HOST, free_port

START_SECONDS = 90.0
ADMIN = "admin"
DEPLOYED_USERS = Path(__file__).parents[1] / "deploy" / "config" / "basic_auth.ini"
DEPLOYED_DATABASE = "postgresql+psycopg://mixrec@postgres:5432/mlflow"


class MlflowServer:
    """On a free port of this machine, with its files, and its database unless `store` names one, in `folder`.

    Not started yet.

    Args:
        password: of its user `admin`. With one it asks everybody for user and password, and answers to its address
            alone, not to another name of this machine, as `deploy/` has it.
    """

    def __init__(self, folder: Path, store: str | None = None, password: str | None = None) -> None:
        self.port = free_port()
        self._store = store or f"sqlite:///{folder / 'db'}"
        self.folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, with all that it was told before, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options, environment = ([], {}) if self._password is None else self._closed(self._password)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._store,
                 "--artifacts-destination", str(self.folder / "artifacts"), "--host", HOST, "--port", str(self.port),
                 "--workers", "1", *options],
                env={**MLFLOW_ENVIRONMENT, "PYTHONWARNINGS": "ignore", **os.environ, **environment},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise RuntimeError(f"MLflow's server does not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def _closed(self, password: str) -> tuple[list[str], dict[str, str]]:
        """Options and environment of a server that asks for a password."""
        users = self.folder / "basic_auth.ini"
        users.write_text(DEPLOYED_USERS.read_text("utf-8").replace(DEPLOYED_DATABASE, f"sqlite:///{self.folder}/users"))
        options = ["--app-name", "basic-auth", "--allowed-hosts", f"{HOST}:{self.port}"]
        return options, {
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        }

    def kill(self) -> None:
        """As a crash: all its processes at once."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
