"""Secrets that are planted in the environment of a search are found nowhere afterwards."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests.end_to_end.shell import Shell, rest_of, wait_for
from tests.ports import free_port

pytestmark = pytest.mark.end_to_end

PLANTED = {
    "MLFLOW_TRACKING_USERNAME": "ada",
    "MLFLOW_TRACKING_PASSWORD": "pl4nted-mlflow-password",
    "HF_TOKEN": "hf_pl4ntedHubToken",
    "AWS_SECRET_ACCESS_KEY": "pl4nted/access+key",
    "RAY_AUTH_TOKEN": "pl4ntedray" * 4,
    "MIXREC_SERVE_TOKEN": "pl4nted-serve-token",
}
IN_AN_ADDRESS = "pl4nted-p:ss@word"
SHORT = ("--set", "search.trials=1", "--set", "search.initial_trials=1", "--set", "cluster.slots=1")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    # Nobody listens there: MLflow's client tells of the address in every error.
    made.environment |= PLANTED | {
        "MLFLOW_TRACKING_URI": f"http://ada:{quote(IN_AN_ADDRESS, safe='')}@127.0.0.1:{free_port()}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    return made


def secrets(*more: str) -> list[str]:
    found = [value for name, value in PLANTED.items() if name != "MLFLOW_TRACKING_USERNAME"]
    return [*found, IN_AN_ADDRESS, quote(IN_AN_ADDRESS, safe=""), *more, "pl4nted"]


def leaks(where: str, content: str | bytes, wanted: list[str]) -> list[str]:
    data = content.encode() if isinstance(content, str) else content
    return [f"{where}: {secret}" for secret in wanted if secret.encode() in data]


def in_files(folder: Path, wanted: list[str]) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # Ray's come and go
            if path.is_file():
                found += leaks(str(path), path.read_bytes(), wanted)
    return found


def rays() -> set[Path]:
    """The folders of the Rays that run here."""
    return {folder for folder in Path(tempfile.gettempdir()).glob("mixrec-*") if list(folder.rglob("raylet.out"))}


def rows(url: str) -> str:
    """All that a database holds, as text."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return "\n".join(
            row for (table,) in tables for (row,) in connection.execute(f"SELECT t::text FROM {table} t").fetchall()
        )


def test_none_is_found_anywhere(shell: Shell, postgres_url: str) -> None:
    """In PostgreSQL, the home folder, Ray's logs, on the terminal, in JSON: with an MLflow that does not answer."""
    shell.environment["MIXREC_DATABASE_URL"] = postgres_url
    wanted = secrets(postgres_url.split(":")[2].partition("@")[0])
    others = rays()
    search = shell.start("search", "smoke", "--name", "first", *SHORT)
    before = wait_for(search, "trial 0")
    logs = rays() - others
    assert logs, "the check sees Ray's logs"
    found: set[str] = set()
    while search.poll() is None:  # they are gone with the command
        found |= {one for folder in logs for one in in_files(folder, wanted)}
        time.sleep(1)
    said = {"search": "".join(before) + rest_of(search)}
    assert search.returncode == 0, said
    for command in (["show", "first"], ["show", "first", "--json"], ["searches", "--json"]):
        said[" ".join(command)] = shell.run(*command)
    assert "ConnectionError" in said["show first --json"] or "MLflow lags" in said["show first"], "an error was kept"
    said["doctor"] = shell.run("doctor", code=1)
    said["ui"] = shell.run("ui")
    assert ":***@127.0.0.1" in said["ui"]
    said["recommend"] = shell.run("recommend", "mixrec-walks", "--item", "1", code=2)
    said["rows"] = rows(postgres_url)
    assert "first" in said["rows"], "the check sees the database"
    found |= {one for where, text in said.items() for one in leaks(where, text, wanted)}
    assert found | {*in_files(shell.home, wanted)} == set()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:pl4nted-pass@127.0.0.1:9/db",
        "postgresql+psycopg://127.0.0.1:9/db?user=me&password=pl4nted-pass",
        "postgresql:/me:pl4nted-pass@127.0.0.1/db",
        "nonsense://me:pl4nted-pass@127.0.0.1/db",
    ],
)
def test_the_address_of_a_database_is_told_without_its_password(shell: Shell, url: str) -> None:
    shell.environment["MIXREC_DATABASE_URL"] = url
    said = shell.run("searches", code=2)
    assert said.startswith("error: ")
    assert leaks("searches", said, secrets()) == []
