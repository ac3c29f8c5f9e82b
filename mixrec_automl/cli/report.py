"""`mixrec-automl report NAME`: a search as one page that can be sent to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: mixrec-automl report my-search --out my-report"


def report(
    name: Annotated[str, typer.Argument(help="A search with at least one trial, also one that runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page and its figures (default: NAME-report).")
    ] = None,
) -> None:
    """Write a search as one HTML page that needs no network, with each figure as SVG and PNG beside it: how it went,
    what the winner is and gains, what the bits are worth, and what to try next. MLflow keeps a copy with the search."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.report.material import Material
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.tracking import keep_report
    from trainers.errors import in_one_line
    from trainers.secrecy import without_secrets

    repository = Repository.open()
    material = Material.read(repository, name)
    folder = out or Path(f"{name}-report")
    console = make_console()
    with console.status("fitting the surrogate and drawing"):
        from mixrec_automl.report.page import write_report

        written = write_report(material, folder)
    console.print(str(written[0]), highlight=False, markup=False, soft_wrap=True)
    with console.status("MLflow"):
        try:
            keep_report(repository, name, written)
        except Exception as error:  # of many kinds; the report is there all the same
            told = without_secrets(in_one_line(error))
            console.print(f"MLflow keeps no copy: {told}", style="yellow", markup=False, soft_wrap=True)
