"""`mixrec-automl similar`: the items that a model holds for the most alike."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mixrec_automl.cli.recommend import MODEL_HELP

EXAMPLE = (
    "Examples: mixrec-automl similar mixrec-ml-100k --item 50 -k 5 ; "
    "mixrec-automl similar mixrec-ml-100k --text 'a horror film in space' --json"
)


def similar(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    item: Annotated[str | None, typer.Option("--item", help="Item of the catalogue.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Free text in place of an item.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of items.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the items nearest to an item or a text, by the cosine of the vectors that MixRec has of single items."""
    from rich.console import Console
    from rich.table import Table

    from mixrec_automl.cli.tables import make_console, plain
    from trainers.errors import UserError

    if (item is None) == (text is None):
        raise UserError("give what the items are to be near to, either with --item ID or with --text TEXT")
    said = text or ""
    from mixrec_automl.serving.loading import load_now
    from trainers.similar import similar_to_item, similar_to_text

    package = load_now(model).package
    with Console(stderr=True).status(f"reading {len(package.catalogue)} items"):
        found = similar_to_text(package, said, k) if item is None else similar_to_item(package, item, k)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    catalogue = package.catalogue
    table = Table(title=plain(f"nearest to {said if item is None else catalogue.titles[catalogue.index[item]]}"))
    for heading in ("#", "item"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("title")
    table.add_column("cosine", justify="right", no_wrap=True)
    for one in found:
        table.add_row(str(one.rank), plain(one.item), plain(one.title), f"{one.cosine:.4f}")
    make_console().print(table)
