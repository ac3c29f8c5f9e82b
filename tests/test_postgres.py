"""The tests' own PostgreSQL does what tests of outages rely on, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from tests import postgres
from tests.postgres import PACKAGE, PostgresMissingError, PostgresServer, packaged_binaries, system_binaries


@pytest.fixture(params=[system_binaries, packaged_binaries], ids=["system", "package"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    binaries = request.param()
    if binaries is None:
        pytest.skip(f"no PostgreSQL by {request.param.__name__}: one of the two ways to it is enough")
    server = PostgresServer(binaries)
    yield server
    server.close()
    assert not server.folder.exists()


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_what_was_committed_outlives_a_crash_and_what_was_not_does_not(server: PostgresServer) -> None:
    url = server.create_database()
    open_one = connect(url)
    open_one.execute("CREATE TABLE kept (number integer)")
    open_one.execute("INSERT INTO kept VALUES (1)")
    open_one.execute("BEGIN")
    open_one.execute("INSERT INTO kept VALUES (2)")
    server.kill()
    assert not server.is_running
    with pytest.raises(psycopg.OperationalError):
        open_one.execute("COMMIT")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(url)
    server.start()
    with connect(url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
    assert "not properly shut down" in (server.folder / "log").read_text(), "it was a crash"


def test_a_frozen_server_keeps_its_connections_and_is_silent(server: PostgresServer) -> None:
    connection = connect(server.create_database())
    server.freeze()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(host="127.0.0.1", port=server.port, connect_timeout=2)
    connection.pgconn.send_query(b"SELECT 1")
    time.sleep(0.3)
    connection.pgconn.consume_input()
    assert connection.pgconn.is_busy()
    server.thaw()
    result = connection.pgconn.get_result()
    assert result is not None
    assert result.get_value(0, 0) == b"1"
    connection.close()


def test_databases_are_separate_and_can_be_dropped_while_in_use(server: PostgresServer) -> None:
    one, other = server.create_database(), server.create_database()
    connection = connect(one)
    connection.execute("CREATE TABLE here (number integer)")
    with connect(other) as elsewhere, pytest.raises(psycopg.errors.UndefinedTable):
        elsewhere.execute("SELECT * FROM here")
    server.drop_database(one)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(one)
    connection.close()


@pytest.mark.usefixtures("postgres_binaries")
@pytest.mark.parametrize("state", ["running", "frozen", "killed"])
def test_nothing_outlives_the_process_that_started_it(state: str) -> None:
    act = {"running": "", "frozen": "server.freeze()", "killed": "server.kill()"}[state]
    code = f"""
import sys, time
from tests.postgres import PostgresServer
server = PostgresServer()
print(server.folder, server._process.pid, server._guard.pid, flush=True)
{act}
print("done", flush=True)
time.sleep(1000)
"""
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as starter:
        assert starter.stdout is not None
        folder, *pids = starter.stdout.readline().split()
        assert Path(folder).is_dir()
        segment = int((Path(folder) / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1])
        assert str(segment) in shared_memory()
        starter.stdout.readline()
        starter.kill()
    end = time.monotonic() + 20
    while Path(folder).exists() or any(is_alive(int(pid)) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert str(segment) not in shared_memory()


def shared_memory() -> list[str]:
    return [line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_machine_without_postgresql_is_told_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "SYSTEM_FOLDERS", tmp_path)
    assert system_binaries() is None
    monkeypatch.setattr(postgres, "PACKAGE", "no_such_package")
    with pytest.raises(PostgresMissingError, match=rf"PATH or in {tmp_path}.*no package no_such_package"):
        postgres.find_binaries()
    for version in ("9.6", "15", "17"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "postgres").touch()
    assert postgres.find_binaries() == tmp_path / "17" / "bin"
    monkeypatch.setenv("PATH", str(tmp_path / "15" / "bin"))
    (tmp_path / "15" / "bin" / "initdb").touch(mode=0o755)
    assert postgres.find_binaries() == tmp_path / "15" / "bin", "what is on PATH was chosen"


def test_the_package_is_named_as_the_one_that_the_development_extra_installs() -> None:
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    assert f'"{PACKAGE.replace("_", "-")}' in project
