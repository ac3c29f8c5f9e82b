"""What `promote` and `update` print of a full training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from trainers.secrecy import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

    from mixrec_automl.full_run import Outcome
    from mixrec_automl.full_training import Evaluation, FullTraining

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def told(plan: FullTraining, console: Console, again: str, carry_out: Callable[[], Outcome | None]) -> None:
    """Announce a full training, carry it out, and tell how it ended.

    Args:
        again: the command that goes on with it once it is stopped.

    Raises:
        typer.Exit: it failed, or was stopped.
    """
    import typer

    from mixrec_automl.full_training import FullTrainingError

    cluster, epochs = plan.config.cluster, plan.config.training.epochs
    processes = "1 process" if cluster.workers_per_trial == 1 else f"{cluster.workers_per_trial} processes"
    length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    console.print(
        f"training on all users: {length}, {processes} of {cluster.cpus_per_worker} CPU, from {plan.began_with}",
        highlight=False,
    )
    try:
        outcome = carry_out()
    except FullTrainingError as error:
        _print(console, f"the training failed:\n{without_secrets(str(error))}")
        raise typer.Exit(EXIT_FAILED) from error
    if outcome is None:
        _print(console, f"stopped; to go on: {again}")
        raise typer.Exit(EXIT_INTERRUPTED)
    _tell(outcome, plan, console)


def _tell(outcome: Outcome, plan: FullTraining, console: Console) -> None:
    from mixrec_automl import paths
    from mixrec_automl.cli.tables import printable

    console.print(results_table(outcome.evaluations))
    version, moves = outcome.version, outcome.decision.moves
    became = "is now the champion" if moves else "is registered, not as champion"
    called = version.name if moves else version.reference
    lines = (
        outcome.decision.reason,
        f"{version} {became}",
        f"ranks     {plan.folder}",
        f"MLflow    {without_secrets(paths.tracking_uri())}",
        f"next      mixrec-automl recommend {called} --text {shlex.quote(printable(outcome.example_title))}",
        "          mixrec-automl ui",
    )
    for line in lines:
        _print(console, line)


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def results_table(evaluations: tuple[Evaluation, ...]) -> Table:
    """Test metrics beside the floors, with seen items in the ranking and without."""
    from rich.table import Table

    table = Table("seen items", "model", title="test items, full ranking")
    for heading in ("MRR", "NDCG@10", "Recall@10", "MRR minus popularity, 95 %"):
        table.add_column(heading, justify="right")
    for evaluation in evaluations:
        seen = "left out" if evaluation.exclude_seen else "ranked"
        rows = {"MixRec": evaluation.metrics, **evaluation.floors}
        for model, metrics in rows.items():
            difference = evaluation.against_popularity
            interval = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            table.add_row(
                seen,
                model,
                f"{metrics.mrr:.4f} ± {metrics.mrr_error:.4f}",
                f"{metrics.ndcg_at_10:.4f}",
                f"{metrics.recall_at_10:.4f}",
                interval if model == "MixRec" else "",
            )
    return table
