"""Opening the database: what SQLite is set to, and what a user is told when it cannot be used."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Timer

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.exc import IntegrityError

from mixrec_automl.store.engine import BUSY_SECONDS, open_engine
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.file_systems import network_file_system
from mixrec_automl.store.models import TrialRow
from mixrec_automl.store.repository import Repository
from trainers.errors import UserError


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    engine = open_engine(url_of(tmp_path / "new" / "folder" / "mixrec.db"))
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "busy_timeout": BUSY_SECONDS * 1000, "foreign_keys": 1}


def test_writes_take_the_lock_at_once_and_reads_do_not(tmp_path: Path) -> None:
    repository = Repository.open(url_of(tmp_path / "mixrec.db"))
    begun: list[str] = []
    event.listen(
        repository._transactions._engine,
        "before_cursor_execute",
        lambda _c, _u, statement, *_: begun.append(statement) if statement.startswith("BEGIN") else None,
    )
    repository.searches()
    assert begun == ["BEGIN"]
    repository.create_search("s", {}, "")
    assert begun == ["BEGIN", "BEGIN IMMEDIATE"]


def test_foreign_keys_hold(database_url: str) -> None:
    engine = open_engine(database_url)
    orphan = insert(TrialRow).values(
        search_id=99, number=0, architecture="000", seed=0, origin="Sobol", state="QUEUED", attempt=0, losses=0,
        revision=0, proposal_seconds=0.0, created_at=text("CURRENT_TIMESTAMP"),
    )  # fmt: skip
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(orphan)
    engine.dispose()


def test_opening_again_keeps_what_is_there(database_url: str) -> None:
    first = Repository.open(database_url)
    first.create_search("s", {}, "")
    first.close()
    second = Repository.open(database_url)
    assert [found.name for found in second.searches()] == ["s"]
    second.close()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are notes, no database\n" * 50)
    with pytest.raises(UserError, match="not a database"):
        open_engine(url_of(tmp_path / "notes.db"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        open_engine(url_of(tmp_path / "file" / "mixrec.db"))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unable to open"):
        open_engine(url_of(tmp_path))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("server:/home {} nfs4 rw 0 0", "nfs4"),
        ("//server/home {} cifs rw 0 0", "cifs"),
        ("sshfs {} fuse.sshfs rw 0 0", "fuse.sshfs"),
        ("/dev/sdb {} ext4 rw 0 0", None),
        ("server:/elsewhere {}/elsewhere nfs rw 0 0", None),
    ],
)
def test_network_file_systems_are_recognised(tmp_path: Path, line: str, kind: str | None) -> None:
    folder = tmp_path / "a home" / "below"
    folder.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    place = str(tmp_path / "a home").replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\n{line.format(place)}\n")
    assert network_file_system(folder, mounts) == kind
    assert network_file_system(folder, tmp_path / "no such file") is None


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixrec_automl.store.engine.network_file_system", lambda _: "nfs4")
    with pytest.raises(UserError, match=r"network file system \(nfs4\).*MIXREC_DATABASE_URL"):
        open_engine(url_of(tmp_path / "mixrec.db"))


def test_a_database_that_is_locked_for_long_is_an_outage(tmp_path: Path) -> None:
    repository = Repository.open(url_of(tmp_path / "mixrec.db"))
    repository._transactions._engine.dispose()
    event.listen(repository._transactions._engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout = 100"))
    with sqlite3.connect(tmp_path / "mixrec.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailableError, match="locked"):
            repository.create_search("s", {}, "")
        other.execute("ROLLBACK")
    assert repository.create_search("s", {}, "").name == "s"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no database URL"),
        ("mixrec.db", "no database URL"),
        ("sqlite://", "in memory would be lost"),
        ("nonsense://host/db", "no driver"),
    ],
)
def test_unusable_addresses(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_engine(url)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(UserError) as caught:
        open_engine("nonsense://user:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_long_write_of_another_program_is_waited_for(tmp_path: Path) -> None:
    repository = Repository.open(url_of(tmp_path / "mixrec.db"))
    other = sqlite3.connect(tmp_path / "mixrec.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = Timer(0.5, lambda: other.execute("COMMIT"))
    timer.start()
    repository.create_search("s", {}, "")
    timer.join()
    assert repository.search("s").name == "s"
