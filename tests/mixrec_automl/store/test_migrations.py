"""The tables' revisions: up from nothing, up and down with what is in them, and databases that another version made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from typer.testing import CliRunner, Result

from mixrec_automl.cli.app import app
from mixrec_automl.store import migration, postgres, schema
from mixrec_automl.store.engine import current_revision, engine_to_migrate, open_engine
from mixrec_automl.store.models import Base
from mixrec_automl.store.records import Search
from mixrec_automl.store.repository import Repository
from tests.mixrec_automl.store.writing import started, writer_of
from trainers.errors import UserError

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    with op.batch_alter_table("search") as table:  # SQLite makes the table anew
        table.alter_column("fingerprint", new_column_name="data", existing_type=sa.String(200))
        table.add_column(sa.Column("note", sa.Text))
    op.execute("UPDATE search SET note = 'about ' || name")


def downgrade():
    with op.batch_alter_table("search") as table:
        table.drop_column("note")
        table.alter_column("data", new_column_name="fingerprint", existing_type=sa.String(200))
"""


@pytest.fixture
def present_revision(database_url: str) -> str:
    """A database as the present version makes it, with a search that nobody runs any more."""
    repository = Repository.open(database_url)
    repository.create_search("first", {"a": [1]}, "abc")
    writer = writer_of(repository)
    started(writer, 0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    writer.complete_trial(0, 1, 0.1, 0.01)
    writer.release()
    repository.add_promotion("first", 0)
    repository.close()
    return database_url


@contextmanager
def newer_version(tmp_path: Path, script: str = LATER) -> Iterator[None]:
    """The program is one with a revision more."""
    folder = tmp_path / "100 % new" / "migrations"
    shutil.copytree(migration.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0003_later.py").write_text(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migration, "FOLDER", folder)
        patch.setattr(schema, "HEAD", "0003")
        yield


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def content(url: str) -> list[object]:
    repository = Repository.open(url)
    try:
        kinds = (repository.trials, repository.observations, repository.promotions)
        return [*repository.searches(), *(kind("first") for kind in kinds)]
    finally:
        repository.close()


def differences(url: str) -> list[Any]:
    """Between the tables and the models, as Alembic finds them."""
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        return list(compare_metadata(context, Base.metadata))


def form(engine: Engine) -> dict[str, Any]:
    """Columns, keys and constraints of every table."""
    found = inspect(engine)
    return {
        name: (
            [{**column, "type": str(column["type"])} for column in found.get_columns(name)],
            found.get_pk_constraint(name),
            sorted(map(str, found.get_foreign_keys(name))),
            sorted(map(str, found.get_unique_constraints(name))),
            sorted(map(str, found.get_indexes(name))),
        )
        for name in sorted(found.get_table_names())
    }


def run(url: str, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments], input=answer, env={"MIXREC_DATABASE_URL": url})


def refused(url: str, *arguments: str) -> str:
    """The one line that the command prints in place of doing it."""
    ran = run(url, *arguments)
    assert ran.exit_code == 2, ran.output
    assert ran.output.count("\n") == 1
    return ran.output


# From nothing and back


def test_the_revision_that_is_needed_is_that_of_the_last_script() -> None:
    assert migration._scripts().get_heads() == [schema.HEAD]


def test_the_migrations_make_the_tables_of_the_models(database_url: str) -> None:
    engine = open_engine(database_url)
    assert differences(database_url) == []
    migrated = form(engine)
    del migrated[schema.VERSION_TABLE]
    with engine_to_migrate(database_url) as again:
        assert migration.downgrade(again, migration.BASE) == schema.HEAD
    assert form(engine) == {}
    Base.metadata.create_all(engine)
    assert form(engine) == migrated
    assert len(migrated) == 4
    engine.dispose()


def test_mlflow_in_the_same_database_is_left_alone(database_url: str, tmp_path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # here, since it takes seconds

    mlflow = SqlAlchemyStore(database_url, str(tmp_path / "artifacts"))
    mlflow.create_experiment("theirs")
    with connected(database_url) as connection:
        tables = {*inspect(connection).get_table_names()}
        theirs = connection.scalar(text("SELECT version_num FROM alembic_version"))
    repository = Repository.open(database_url)
    repository.create_search("first", {}, "")
    repository.close()
    with engine_to_migrate(database_url) as engine:
        assert current_revision(engine) == schema.HEAD
        migration.downgrade(engine, migration.BASE)
    with connected(database_url) as connection:
        assert {*inspect(connection).get_table_names()} == tables
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == theirs
    assert mlflow.get_experiment_by_name("theirs") is not None
    mlflow.engine.dispose()


def test_tables_of_another_program_are_not_touched(database_url: str) -> None:
    with connected(database_url) as connection:
        connection.execute(text("CREATE TABLE trial (drug TEXT)"))
    with pytest.raises(UserError, match=r"tables of another program.*\(trial\).*MIXREC_DATABASE_URL"):
        open_engine(database_url)
    for command in (["status"], ["upgrade"], ["downgrade", "base", "--yes"]):
        assert "tables of another program" in refused(database_url, "database", *command)
    with connected(database_url) as connection:
        assert inspect(connection).get_table_names() == ["trial"]


# Opening


def test_processes_that_open_an_empty_database_at_once_all_succeed(database_url: str) -> None:
    program = (
        "import sys; from mixrec_automl.store import migration; from mixrec_automl.store.repository import Repository; "
        "print('ready', flush=True); sys.stdin.readline(); Repository.open(sys.argv[1]).close()"
    )
    command = [sys.executable, "-c", program, database_url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    with connected(database_url) as connection:
        assert connection.scalars(text(f"SELECT version_num FROM {schema.VERSION_TABLE}")).all() == [schema.HEAD]


def test_who_opens_an_empty_database_waits_for_another_one_that_makes_the_tables(database_url: str) -> None:
    with ThreadPoolExecutor(1) as pool, engine_to_migrate(database_url) as engine:
        with migration._alone(engine) as connection:
            migration._make_tables(connection)
            other = pool.submit(open_engine, database_url)
            with pytest.raises(TimeoutError):
                other.result(1)
        other.result().dispose()


@pytest.mark.parametrize("is_there", [True, False])
def test_alembic_is_loaded_for_an_empty_database_only(database_url: str, is_there: bool) -> None:
    if is_there:
        Repository.open(database_url).close()
    program = (
        "import sys; from mixrec_automl.store.repository import Repository; Repository.open(sys.argv[1]).searches(); "
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, database_url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(not is_there)


def test_opening_what_is_up_to_date_takes_no_lock(database_url: str) -> None:
    Repository.open(database_url).close()
    with engine_to_migrate(database_url) as engine, migration._alone(engine):
        Repository.open(database_url).close()


def test_the_second_revision_keeps_what_the_first_has_recorded(present_revision: str) -> None:
    """Owner and slots are lost on the way down; a search of before has none."""
    repository = Repository.open(present_revision)
    repository.create_search("owned", {}, "abc", owner="ada")
    repository.close()
    before = content(present_revision)
    with engine_to_migrate(present_revision) as engine:
        migration.downgrade(engine, "0001")
        assert not {"owner", "lease_cluster"} & {one["name"] for one in inspect(engine).get_columns("search")}
        assert migration.upgrade(engine) == "0001"
    owned, *others = before
    assert isinstance(owned, Search)
    assert owned.owner == "ada"
    assert content(present_revision) == [replace(owned, owner=None), *others]
    assert differences(present_revision) == []


# Other revisions


def test_an_older_database_is_refused_and_left_as_it_is(present_revision: str, tmp_path: Path) -> None:
    with newer_version(tmp_path):
        for _ in range(2):
            told = refused(present_revision, "searches")
            assert "is at revision 0002, older than 0003" in told
            assert "`mixrec-automl database upgrade`" in told
        status = run(present_revision, "database", "status")
        assert status.exit_code == 1
        assert [line.split()[-1] for line in status.output.splitlines()[1:]] == ["0002", "0003"]
    assert len(content(present_revision)) == 4


@pytest.mark.parametrize("command", ["searches", "database upgrade", "database downgrade base --yes"])
def test_a_newer_database_is_refused(present_revision: str, command: str) -> None:
    with connected(present_revision) as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0815'"))
    told = refused(present_revision, *command.split())
    assert "is at revision 0815" in told
    assert "use a newer mixrec-automl" in told


def test_what_is_in_the_tables_survives_up_and_down(present_revision: str, tmp_path: Path) -> None:
    before = content(present_revision)
    with newer_version(tmp_path):
        assert "0002 -> 0003" in run(present_revision, "database", "upgrade").output
        assert "0003 already" in run(present_revision, "database", "upgrade").output
        open_engine(present_revision).dispose()
        with connected(present_revision) as connection:
            assert connection.execute(text("SELECT data, note FROM search")).one() == ("abc", "about first")
            assert connection.scalar(text("SELECT count(*) FROM observation")) == 1
        assert run(present_revision, "database", "downgrade", "0002", answer="n").exit_code == 1
        assert "0003 -> 0002" in run(present_revision, "database", "downgrade", "0002", answer="y").output
        assert "choose one of base, 0001, 0002" in refused(present_revision, "database", "downgrade", "0003", "--yes")
    assert content(present_revision) == before
    assert differences(present_revision) == []


@pytest.mark.parametrize("mistake", ["raise ValueError('a mistake')", "op.execute('nonsense')"])
def test_a_script_that_fails_leaves_everything_as_it_was(present_revision: str, tmp_path: Path, mistake: str) -> None:
    before = content(present_revision)
    with newer_version(tmp_path, LATER.replace("\n\n\ndef downgrade", f"\n    {mistake}\n\n\ndef downgrade")):
        assert run(present_revision, "database", "upgrade").exit_code != 0
    assert content(present_revision) == before
    assert differences(present_revision) == []


def test_a_script_may_not_leave_rows_without_their_parents(present_revision: str, tmp_path: Path) -> None:
    """SQLite's keys rest meanwhile; PostgreSQL's do not, and take the children with them."""
    before = content(present_revision)
    with newer_version(tmp_path, LATER.replace("UPDATE search SET note = 'about ' || name", "DELETE FROM search")):
        ran = run(present_revision, "database", "upgrade")
    if present_revision.startswith("sqlite"):
        assert "without their row of search" in str(ran.exception)
        assert content(present_revision) == before
    else:
        assert ran.exit_code == 0


def test_a_search_that_is_run_is_not_migrated_under(present_revision: str, tmp_path: Path) -> None:
    repository = Repository.open(present_revision)
    writer = writer_of(repository, who="ada")
    with newer_version(tmp_path):
        for command in (["upgrade"], ["downgrade", "base", "--yes"]):
            told = refused(present_revision, "database", *command)
            assert "search first is run by ada@test" in told
            assert "--force" in told
        assert run(present_revision, "database", "upgrade", "--force").exit_code == 0
        assert run(present_revision, "database", "downgrade", "0002", "--yes", "--force").exit_code == 0
        writer.release()
        assert run(present_revision, "database", "upgrade").exit_code == 0
    repository.close()


def test_a_long_statement_of_a_script_is_waited_for(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Repository.open(postgres_url).close()
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 0.5)
    script = LATER.replace("UPDATE search SET note = 'about ' || name", "SELECT pg_sleep(2)")
    with newer_version(tmp_path, script):
        assert run(postgres_url, "database", "upgrade").exit_code == 0


def test_a_database_without_tables_has_nothing_to_go_back_to(database_url: str) -> None:
    assert "revision  none" in run(database_url, "database", "status").output
    assert "has no tables" in refused(database_url, "database", "downgrade", "base", "--yes")
    assert "none -> 0002" in run(database_url, "database", "upgrade").output
    assert "revision 0002 already" in run(database_url, "database", "downgrade", "0002").output, "nobody is asked"
    assert run(database_url, "database", "status").exit_code == 0
