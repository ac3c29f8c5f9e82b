"""`mixrec-automl data`: known data sets and your own, prepared once and looked at."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Column, Table

from mixrec_automl import paths
from mixrec_automl.cli.tables import plain
from trainers.config import FilterConfig
from trainers.data.amazon import local
from trainers.data.errors import DataError
from trainers.data.filters import Counts
from trainers.data.known import KNOWN, find_known
from trainers.data.prepare import prepare as prepare_data
from trainers.data.sources import Source
from trainers.data.splits import TemporalSplit
from trainers.data.statistics import summarise
from trainers.data.store_format import Manifest, open_prepared, read_manifest
from trainers.data.tables import DEFAULT_ATTRIBUTES, Attributes
from trainers.errors import UserError

app = typer.Typer(help="Prepare data sets and look at them.", no_args_is_help=True, rich_markup_mode="markdown")

DEFAULTS, TEMPORAL = FilterConfig(), TemporalSplit()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

PREPARE_EXAMPLES = """
Examples:

    mixrec-automl data prepare ml-100k

    mixrec-automl data prepare ml-100k --folder ~/ml-100k        (without network)

    mixrec-automl data prepare --name arts --items items.jsonl.gz --sequences sequences.jsonl.gz

    mixrec-automl data prepare --name shop --items items.csv --interactions events.parquet

    mixrec-automl data prepare --name pantry --amazon-metadata meta_Prime_Pantry.json.gz \
                               --amazon-reviews Prime_Pantry.json.gz

    mixrec-automl data prepare --name shop --items shop.item --interactions shop.inter --attribute title
"""


@app.command("list", epilog="Example: mixrec-automl data list --json")
def list_(as_json: AsJson = False) -> None:
    """List the data sets that are prepared or can be fetched by name."""
    rows = [_row(name) for name in sorted({*paths.prepared_names(), *(known.name for known in KNOWN)})]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(
        "name", "state", *(_number_column(name) for name in ("users", "items", "interactions")), "fingerprint"
    )
    for row in rows:
        numbers = (f"{row[name]:,}" if row[name] is not None else "" for name in ("users", "items", "interactions"))
        table.add_row(row["name"], row["state"], *numbers, (row["fingerprint"] or "")[:12])
    console = Console()
    console.print(table)
    for known in KNOWN:
        console.print(f"{known.name}: {known.description}. {known.licence}.", highlight=False)


@app.command("prepare", epilog=PREPARE_EXAMPLES)
def prepare(
    known_name: Annotated[
        str | None, typer.Argument(metavar="KNOWN", help="A data set of `data list`; leave out for your own files.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to store it under (default: that of the known set).")] = None,
    items: Annotated[
        Path | None, typer.Option(help="Items: .jsonl, .csv, .item (each also .gz) or .parquet, with `id` and a title.")
    ] = None,
    sequences: Annotated[
        Path | None, typer.Option(help="One user a row: `user`, `items` oldest to newest, optionally `ts`.")
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(help="One interaction a row: `user`, `item`, optionally `timestamp` (else file order is time)."),
    ] = None,
    amazon_metadata: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Amazon's metadata of 2018, `meta_*.json.gz`.")
    ] = None,
    amazon_reviews: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Amazon's reviews of 2018, `*.json.gz`.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where a known set's files lie, instead of fetching them.")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            help=f"KEY or KEY=COLUMN of the item sentence, in order (default: {', '.join(DEFAULT_ATTRIBUTES)})."
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool, typer.Option(help="Drop repeats of user, item and time stamp.")
    ] = DEFAULTS.drop_duplicates,
    require_title: Annotated[bool, typer.Option(help="Drop items without title.")] = DEFAULTS.require_title,
    min_item_interactions: Annotated[
        int, typer.Option(min=0, help="Drop items with fewer.")
    ] = DEFAULTS.min_item_interactions,
    min_user_interactions: Annotated[
        int, typer.Option(min=3, help="Drop users with fewer; leave-one-out needs three.")
    ] = DEFAULTS.min_user_interactions,
    temporal: Annotated[
        bool, typer.Option("--temporal", help="Split at two moments for all users instead of leave-one-out.")
    ] = False,
    validation_share: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Of all interactions, with --temporal.")
    ] = TEMPORAL.validation_share,
    test_share: Annotated[
        float, typer.Option(min=0.001, max=0.499, help="Of all interactions, with --temporal.")
    ] = TEMPORAL.test_share,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite another data set of this name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read, filter, order and store a data set; print what each filter left."""
    attributes = _attributes(attribute) if attribute else None
    filters = FilterConfig(drop_duplicates, require_title, min_item_interactions, min_user_interactions)
    if amazon_metadata or amazon_reviews:
        if known_name or items or sequences or interactions or folder or attributes:
            raise UserError("--amazon-metadata and --amazon-reviews are all the files there are: leave out the others")
        stored_name, source = _amazon_source(name, amazon_metadata, amazon_reviews)
    else:
        stored_name, source = _source(known_name, name, items, sequences, interactions, folder, attributes)
    target = paths.data_folder(stored_name)
    with Console(stderr=True).status(f"preparing {stored_name}") as status:
        manifest = prepare_data(
            stored_name,
            source,
            filters,
            target,
            temporal=TemporalSplit(validation_share, test_share) if temporal else None,
            replace=replace,
            progress=lambda stage: status.update(f"{stored_name}: {stage}"),
        )
    if as_json:
        typer.echo(_manifest_json(manifest))
        return
    console = Console()
    console.print(_counts_table(manifest.counts))
    console.print(f"stored in {target}, fingerprint {manifest.fingerprint[:12]}", highlight=False, soft_wrap=True)
    console.print(f"next: mixrec-automl data show {stored_name}", highlight=False)


@app.command("show", epilog="Example: mixrec-automl data show ml-100k --history 20 --json")
def show(
    name: Annotated[str, typer.Argument(help="A prepared data set.")],
    history: Annotated[int, typer.Option(min=1, help="Newest items of a user that the backbone reads.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show a prepared data set: counts, lengths, how many targets a history keeps, repeats, fingerprint."""
    folder = paths.data_folder(name)
    if not folder.exists():
        raise _not_prepared(name)
    manifest, summary = read_manifest(folder), summarise(open_prepared(folder), history)
    if as_json:
        typer.echo(
            json.dumps({**json.loads(_manifest_json(manifest)), "summary": dataclasses.asdict(summary)}, indent=1)
        )
        return
    console = Console()
    console.print(_counts_table(manifest.counts))
    facts = Table(Column(), Column(overflow="fold"), show_header=False)
    facts.add_row("item sentence", plain(" ".join(f"{key} ..." for key in manifest.attributes)))
    facts.add_row("interactions a user", ", ".join(f"{at} {length}" for at, length in summary.length_quantiles.items()))
    facts.add_row("training interactions", f"{summary.training_interactions:,}")
    facts.add_row("items without training interaction", f"{summary.items_without_training:,}")
    facts.add_row(f"training targets kept by a history of {history}", f"{summary.targets_kept:.1%}")
    facts.add_row("users with a validation, a test item", f"{summary.validated_users:,}, {summary.tested_users:,}")
    facts.add_row("test item seen before", f"{summary.repeat_share:.1%} of those tested")
    facts.add_row("split", manifest.split)
    facts.add_row("fingerprint", manifest.fingerprint)
    facts.add_row("folder", str(folder))
    console.print(facts)


def _amazon_source(name: str | None, metadata: str | None, reviews: str | None) -> tuple[str, Source]:
    """The name to store under and the two files, fetched where they are URLs."""
    if name is None or metadata is None or reviews is None:
        raise UserError("for Amazon's files give --name, --amazon-metadata and --amazon-reviews")
    stored = paths.valid_name(name, "data set")
    with Console(stderr=True).status("fetching") as status:
        items, kept = (local(one, paths.downloads_folder(), status.update) for one in (metadata, reviews))
    return stored, Source(items=items, reviews=kept)


@app.command("check-table1", epilog="Example: mixrec-automl data check-table1")
def check_table1(as_json: AsJson = False) -> None:
    """Compare the paper's five data sets, where they are prepared under its names, with its Table 1."""
    from mixrec_automl.studies.paper import TABLE_1

    rows: list[dict[str, Any]] = []
    for name, printed in TABLE_1.items():
        folder = paths.data_folder(name)
        ours: dict[str, int] | None = None
        if folder.exists():
            left = read_manifest(folder).counts[-1]
            training = left.interactions - 2 * left.users  # leave-one-out holds out two of each user
            ours = {"users": left.users, "items": left.items, "training interactions": training}
        rows.append({"name": name, "paper": dict(printed), "ours": ours, "equal": ours == dict(printed)})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    counted = list(next(iter(TABLE_1.values())))
    table = Table("data set", *(_number_column(name) for name in counted), "", title="ours / the paper's Table 1")
    for row in rows:
        ours, printed = row["ours"], row["paper"]
        cells = (f"{ours[name]:,} / {printed[name]:,}" if ours else f"- / {printed[name]:,}" for name in counted)
        table.add_row(row["name"], *cells, "not prepared" if ours is None else "equal" if row["equal"] else "differs")
    Console().print(table)


def _source(
    known_name: str | None,
    name: str | None,
    items: Path | None,
    sequences: Path | None,
    interactions: Path | None,
    folder: Path | None,
    attributes: Attributes | None,
) -> tuple[str, Source]:
    """The name to store under and the files, from what the user gave."""
    if known_name is not None:
        known = find_known(known_name)
        if known is None:
            names = ", ".join(known.name for known in KNOWN)
            raise UserError(
                f"no known data set {known_name!r} (there is {names}). "
                f"For your own files: data prepare --name {known_name} --items FILE --sequences FILE"
            )
        if items or sequences or interactions:
            raise UserError(f"{known_name} brings its own files: leave out --items, --sequences and --interactions")
        stored = paths.valid_name(name or known_name, "data set")
        return stored, dataclasses.replace(known.fetch(paths.downloads_folder(), folder), attributes=attributes)
    if folder is not None:
        raise UserError("--folder belongs to a known data set; for your own files give --items and --sequences")
    if name is None or items is None or (sequences is None) == (interactions is None):
        raise UserError("for your own files give --name, --items and either --sequences or --interactions")
    return paths.valid_name(name, "data set"), Source(items, interactions, sequences, attributes=attributes)


def _attributes(given: list[str]) -> Attributes:
    chosen: dict[str, tuple[str, ...]] = {}
    for text in given:
        key, equals, column = (part.strip() for part in text.partition("="))
        if not key or (equals and not column) or key in chosen or len(key.split()) > 1:
            raise UserError(f"--attribute {text!r}: give KEY or KEY=COLUMN, each key one word and once")
        chosen[key] = (column,) if equals else tuple(DEFAULT_ATTRIBUTES.get(key, (key,)))
    return chosen


def _row(name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "state": "can be fetched", "users": None, "items": None, "interactions": None}
    row |= {"fingerprint": None, "folder": None, "known": find_known(name) is not None}
    folder = paths.data_folder(name)
    if folder.is_dir():
        row["folder"] = str(folder)
        try:
            manifest = read_manifest(folder)
        except DataError as error:
            return row | {"state": f"unusable: {error}"}
        left = manifest.counts[-1]
        row |= {"users": left.users, "items": left.items, "interactions": left.interactions}
        row |= {"state": "prepared", "fingerprint": manifest.fingerprint}
    return row


def _not_prepared(name: str) -> UserError:
    how = name if find_known(name) else f"--name {name} --items FILE --sequences FILE"
    return UserError(f"data set {name!r} is not prepared: run mixrec-automl data prepare {how}")


def _counts_table(counts: tuple[Counts, ...]) -> Table:
    table = Table("after", *(_number_column(name) for name in ("users", "items", "interactions")))
    for at in counts:
        table.add_row(at.step, f"{at.users:,}", f"{at.items:,}", f"{at.interactions:,}")
    return table


def _number_column(name: str) -> Column:
    return Column(name, justify="right")


def _manifest_json(manifest: Manifest) -> str:
    return TypeAdapter(Manifest).dump_json(manifest, indent=1).decode()
