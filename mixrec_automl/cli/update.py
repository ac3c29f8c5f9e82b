"""`mixrec-automl update`: train a registered model on with newer data."""

from __future__ import annotations

from typing import Annotated

import typer

from mixrec_automl.cli.trained import told

EXAMPLE = "Example: mixrec-automl update mixrec-shop --data shop-december --epochs 2"


def update(
    model: Annotated[str, typer.Argument(help="A registered model (its champion), NAME@ALIAS or NAME/VERSION.")],
    data: Annotated[
        str, typer.Option("--data", help="Prepared data set: the model's own events and those that have come since.")
    ],
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs (default: a third of those that the model was trained for).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Data-parallel processes.")] = 1,
) -> None:
    """Train a model on with newer data: items keep what was learnt of them, a new item begins with the mean of all,
    each weighted by how well the new text fits it, and new users need nothing. No search and no whole training.

    The next version of the same registered model. It becomes champion unless it is surely worse than a champion of
    older data; beside one of these very data it has to be surely better. Ctrl-C stops it cleanly; the same command
    goes on."""
    from mixrec_automl import paths
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.model_update import plan_update, run_update
    from mixrec_automl.registry import Registry

    console, registry = make_console(), Registry(paths.tracking_uri())
    with console.status("the model and its new items"):
        planned = plan_update(registry, model, data, epochs=epochs, workers=workers)
    console.print(f"{planned.version}: {planned.news}", highlight=False)
    options = f" --data {data}{'' if epochs is None else f' --epochs {epochs}'}"
    options += "" if workers == 1 else f" --workers {workers}"
    again = f"mixrec-automl update {model}{options}"
    told(planned.plan, console, again, lambda: run_update(planned, registry, console))
