"""The command `mixrec-automl`. Command modules import Ray, torch, Ax and MLflow inside their functions, so that help
and the small commands answer at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import mixrec_automl
from mixrec_automl.cli import (
    baselines,
    data,
    database,
    doctor,
    export,
    promote,
    recommend,
    report,
    search,
    searches,
    serve,
    show,
    similar,
    stop,
    study,
    submit,
    ui,
    update,
    watch,
)
from mixrec_automl.cli.errors import FriendlyGroup
from trainers.secrecy import without_secrets

app = typer.Typer(
    name="mixrec-automl",
    cls=FriendlyGroup,
    help="Find and train the best LLM-based sequential recommender for your data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mixrec-automl {mixrec_automl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Both options act before any command: `FriendlyGroup` reads `debug`."""


app.add_typer(data.app, name="data")
app.command("search", epilog=search.SEARCH_EXAMPLE)(search.search)
app.command("resume", epilog=search.RESUME_EXAMPLE)(search.resume)
app.command("submit", epilog=submit.SUBMIT_EXAMPLE)(submit.submit)
app.command("logs", epilog=submit.LOGS_EXAMPLE)(submit.logs)
app.command("stop", epilog=stop.EXAMPLE)(stop.stop)
app.add_typer(study.app, name="study")
app.add_typer(baselines.app, name="baselines")
app.command("searches", epilog=searches.EXAMPLE)(searches.searches)
app.command("show", epilog=show.EXAMPLE)(show.show)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.command("watch", epilog=watch.EXAMPLE)(watch.watch)
app.command("promote", epilog=promote.EXAMPLE)(promote.promote)
app.command("update", epilog=update.EXAMPLE)(update.update)
app.command("recommend", epilog=recommend.EXAMPLE)(recommend.recommend)
app.command("similar", epilog=similar.EXAMPLE)(similar.similar)
app.command("export", epilog=export.EXAMPLE)(export.export)
app.command("serve", epilog=serve.EXAMPLE)(serve.serve)
app.command("ui", epilog=ui.EXAMPLE)(ui.ui)
app.add_typer(database.app, name="database")
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)


def main() -> None:
    """Console script. Exit code 0, 2 for what the user can mend, 1 for the rest."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"internal error: {type(error).__name__}: {without_secrets(str(error))}", err=True)
        typer.echo("`mixrec-automl --debug ...` shows where; please report it", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
