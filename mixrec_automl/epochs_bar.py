"""A progress bar over the epochs of one training; lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mixrec_automl.cluster.executor import EpochEnded


@contextmanager
def epochs_bar(console: Console, epochs: int) -> Iterator[Callable[[EpochEnded], None]]:
    """Yields the function to call after each epoch. A training that goes on starts the bar where it left off."""
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("starting", total=epochs)

        def show(event: EpochEnded) -> None:
            told = f"validation MRR {event.metrics['validation_mrr']:.4f}, loss {event.metrics['loss_total']:.3f}"
            progress.update(bar, completed=event.epoch, description=told)
            if not console.is_terminal:
                seconds = event.metrics["seconds"]
                console.print(f"epoch {event.epoch}/{epochs}: {told}, {seconds:.0f} s", highlight=False, soft_wrap=True)

        yield show
