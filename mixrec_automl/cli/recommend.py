"""`mixrec-automl recommend`: the top items after a history, what they owe to it, and items that the catalogue lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from trainers.explanation import Reason
    from trainers.gates import GateShare
    from trainers.new_items import NewItem
    from trainers.recommend import Recommendation

EXAMPLE = (
    "Examples: mixrec-automl recommend mixrec-ml-100k --item 50 --item 172 --why ; "
    "mixrec-automl recommend mixrec-ml-100k --text 'a space opera' --text 'a horror film in space' -k 5 ; "
    "mixrec-automl recommend mixrec-ml-100k --item 50 --new 'a film about robots' --new 'a musical'"
)
MODEL_HELP = "A registered model (its champion), NAME@ALIAS, NAME/VERSION, or the folder of a package."
MOST_REASONS = 3
"""In a cell; `--json` has all"""
LEAST_DROP = 0.005
"""Less would be printed as 0.00"""


def recommend(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    items: Annotated[
        list[str] | None, typer.Option("--item", help="Item of the history, oldest first; give it several times.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="Free text in place of an item; give it several times.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Number of recommendations: 10, or with --new all, if not given.")
    ] = None,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave items of the history out.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="Recommend this item or others so named, and nothing else.")
    ] = None,
    deny: Annotated[list[str] | None, typer.Option("--deny", help="Never recommend this item.")] = None,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="Say which items of the history each recommendation is because of: those without which its "
            "log-probability falls most. With the gates, for MixRec.",
        ),
    ] = False,
    new: Annotated[
        list[str] | None,
        typer.Option(
            "--new",
            help="Rank this item, which the catalogue lacks, by its text; give it several times. In place of the "
            "catalogue: an item's score is the log-probability of what its text could be of. MixRec only.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend items after a history of item identifiers or of free text, with titles and scores."""
    from mixrec_automl.cli.tables import make_console
    from trainers.errors import UserError

    if bool(items) == bool(texts):
        raise UserError("give the history either with --item ID ... or with --text TEXT ...")
    if new and (why or exclude_seen or allow or deny):
        raise UserError(
            "--new ranks other items than the catalogue's: leave out --why, --exclude-seen, --allow and --deny"
        )
    from mixrec_automl.serving.loading import load_now
    from trainers.explanation import occlusion
    from trainers.gates import gate_shares
    from trainers.new_items import rank_new
    from trainers.recommend import Query
    from trainers.recommend import recommend as recommend_items

    package = load_now(model).package
    allowed, denied = frozenset(allow) if allow else None, frozenset(deny or ())
    most = k or (len(new) if new else 10)
    query = Query(items or texts or [], bool(texts), most, exclude_seen, allowed, denied)
    console = make_console()
    if new:
        ranked = rank_new(package, query, new)
        if as_json:
            typer.echo(json.dumps([asdict(one) for one in ranked], ensure_ascii=False))
        else:
            console.print(_new_table(ranked))
        return
    found = recommend_items(package, query)
    reasons = occlusion(package, query, found) if why else None
    gates = gate_shares(package, query) if why else []
    if as_json:
        typer.echo(json.dumps(_as_json(found, reasons, gates), ensure_ascii=False))
        return
    console.print(_table(found, reasons, f"after {len(query.history)} items of history"))
    if not found:
        console.print("nothing is left to recommend: --allow, --deny and --exclude-seen leave out every item")
    if why and len(set(query.history)) == 1:
        console.print("a history of one item alone: there is nothing to compare it with")
    if gates:
        console.print(_gates_table(gates))


def _as_json(
    found: Sequence[Recommendation], reasons: Sequence[Sequence[Reason]] | None, gates: Sequence[GateShare]
) -> object:
    """A list; with reasons an object, since the gates belong to the history and not to any recommendation."""
    rows = [asdict(one) for one in found]
    if reasons is None:
        return rows
    return {
        "recommendations": [
            {**row, "why": [asdict(reason) for reason in of_item]} for row, of_item in zip(rows, reasons, strict=True)
        ],
        "gates": [asdict(one) for one in gates],
    }


def _table(found: Sequence[Recommendation], reasons: Sequence[Sequence[Reason]] | None, title: str) -> Table:
    from rich.table import Table

    from mixrec_automl.cli.tables import plain

    table = Table(title=title)
    for heading in ("#", "item"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("title")
    table.add_column("log-probability", justify="right", no_wrap=True)
    if reasons is not None:
        table.add_column("because of (fall of the log-probability without it)")
    for place, one in enumerate(found):
        because = [] if reasons is None else [plain(_because(reasons[place]))]
        table.add_row(str(one.rank), plain(one.item), plain(one.title), f"{one.score:.3f}", *because)
    return table


def _because(reasons: Sequence[Reason]) -> str:
    told = [f"{one.title} ({one.drop:.2f})" for one in reasons[:MOST_REASONS] if one.drop >= LEAST_DROP]
    return ", ".join(told) or "-"


def _gates_table(gates: Sequence[GateShare]) -> Table:
    from rich.table import Table

    from mixrec_automl.cli.tables import plain

    table = Table()
    table.add_column("item of the history")
    table.add_column("gates: share of the context-masked attention", justify="right")
    for one in gates:
        table.add_row(plain(one.title), f"{one.context_share:.3f}")
    return table


def _new_table(ranked: Sequence[NewItem]) -> Table:
    from rich.table import Table

    from mixrec_automl.cli.tables import plain

    table = Table(title="new items, by their text")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("text")
    table.add_column("log-probability", justify="right", no_wrap=True)
    for one in ranked:
        table.add_row(str(one.rank), plain(one.text), f"{one.score:.3f}")
    return table
