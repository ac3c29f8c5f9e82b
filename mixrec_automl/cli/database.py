"""`mixrec-automl database`: the tables of the search database, from revision to revision."""

from __future__ import annotations

from typing import Annotated

import typer

from mixrec_automl import paths
from trainers.secrecy import without_secrets

app = typer.Typer(help="Bring the tables of the search database to another revision.", no_args_is_help=True)

EXIT_OTHER_REVISION = 1
Force = Annotated[bool, typer.Option("--force", help="Also while a search is run, which may then fail.")]


@app.command(epilog="Example: mixrec-automl database status")
def status() -> None:
    """Print the revision of the tables and the one that this version needs.

    Exits with 1 where the tables have another one.
    """
    from mixrec_automl.store.engine import current_revision, engine_to_migrate
    from mixrec_automl.store.schema import HEAD

    with engine_to_migrate(paths.database_url(), long_statements=False) as engine:
        found = current_revision(engine)
        if found is None:
            from mixrec_automl.store.migration import check_free

            with engine.begin() as connection:
                check_free(connection)
    typer.echo(f"database  {without_secrets(paths.database_url())}")
    typer.echo(f"revision  {found or 'none: the next command makes the tables'}")
    typer.echo(f"needed    {HEAD}")
    if found not in (None, HEAD):
        raise typer.Exit(EXIT_OTHER_REVISION)


@app.command(epilog="Example: mixrec-automl database upgrade")
def upgrade(force: Force = False) -> None:
    """Bring the tables to the revision that this version needs. Stop searches and promotions, back it up before.

    It succeeds or changes nothing, and is refused while a search is run.
    """
    from mixrec_automl.store import migration
    from mixrec_automl.store.engine import engine_to_migrate
    from mixrec_automl.store.schema import HEAD

    with engine_to_migrate(paths.database_url()) as engine:
        before = migration.upgrade(engine, force=force)
    typer.echo(f"revision {HEAD} already" if before == HEAD else f"revision {before or 'none'} -> {HEAD}")


@app.command(epilog="Example: mixrec-automl database downgrade 0001")
def downgrade(
    revision: Annotated[str, typer.Argument(help="One that the tables have had, or `base` for none at all.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Force = False,
) -> None:
    """Take the tables back to the revision that an older version needs, before that one is installed again.

    What later revisions have added is lost, with `base` everything. Stop searches and promotions, back it up before.
    It succeeds or changes nothing, and is refused while a search is run.
    """
    from mixrec_automl.store import migration
    from mixrec_automl.store.engine import engine_to_migrate

    with engine_to_migrate(paths.database_url(), long_statements=False) as engine:
        if migration.check_downgrade(engine, revision) == revision:
            typer.echo(f"revision {revision} already")
            return
    if not yes:
        lost = "all searches" if revision == migration.BASE else "what later revisions have added"
        typer.confirm(f"{without_secrets(paths.database_url())} loses {lost}. Is it backed up?", abort=True)
    with engine_to_migrate(paths.database_url()) as engine:
        before = migration.downgrade(engine, revision, force=force)
    typer.echo(f"revision {before} -> {revision}")
