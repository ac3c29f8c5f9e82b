"""`mixrec-automl recommend`: the top items after a history."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
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
    from mixrec_automl.cli.tables import make_console
    from trainers.errors import UserError

    if bool(items) == bool(texts):
        raise UserError("give the history either with --item ID ... or with --text TEXT ...")
    from mixrec_automl.registry import Registry, scratch_folder
    from trainers.baselines.package import is_baseline_package, read_baseline_package
    from trainers.package import read_package
    from trainers.recommend import Recommender
    from trainers.recommend import recommend as recommend_items

    with scratch_folder() as scratch:
        package: Recommender
        if is_baseline_package(Path(model)):
            package = read_baseline_package(Path(model))
        else:
            package = read_package(Registry(paths.tracking_uri()).fetch(model, Path(scratch)))
        found = recommend_items(package, items or texts or [], texts=bool(texts), k=k, exclude_seen=exclude_seen)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    table = Table(title=f"after {len(items or texts or [])} items of history")
    for heading in ("#", "item"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("title")
    table.add_column("log-probability", justify="right", no_wrap=True)
    for one in found:
        table.add_row(str(one.rank), one.item, one.title, f"{one.score:.3f}")
    make_console().print(table)
