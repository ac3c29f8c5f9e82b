"""`mixrec-automl recommend`: the top items after a history."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

EXAMPLE = (
    "Examples: mixrec-automl recommend mixrec-ml-100k --item 50 --item 172 ; "
    "mixrec-automl recommend mixrec-ml-100k --text 'a space opera' --text 'a horror film in space' -k 5"
)


def recommend(
    model: Annotated[
        str,
        typer.Argument(help="A registered model (its champion), NAME@ALIAS, NAME/VERSION, or the folder of a package."),
    ],
    items: Annotated[
        list[str] | None, typer.Option("--item", help="Item of the history, oldest first; give it several times.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="Free text in place of an item; give it several times.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of recommendations.")] = 10,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave items of the history out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend items after a history of item identifiers or of free text, with titles and scores."""
    from rich.table import Table

    from mixrec_automl import paths
    from mixrec_automl.cli.tables import make_console, plain
    from trainers.errors import UserError

    if bool(items) == bool(texts):
        raise UserError("give the history either with --item ID ... or with --text TEXT ...")
    from mixrec_automl.serving.loading import ModelSource
    from trainers.recommend import Query
    from trainers.recommend import recommend as recommend_items

    source = ModelSource(model, paths.tracking_uri())
    package = source.load(source.version()).package
    found = recommend_items(package, Query(items or texts or [], bool(texts), k, exclude_seen))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    table = Table(title=f"after {len(items or texts or [])} items of history")
    for heading in ("#", "item"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("title")
    table.add_column("log-probability", justify="right", no_wrap=True)
    for one in found:
        table.add_row(str(one.rank), plain(one.item), plain(one.title), f"{one.score:.3f}")
    make_console().print(table)
