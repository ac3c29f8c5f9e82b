"""`mixrec-automl promote`: train the winner of a search on all users, test it, register it."""

from __future__ import annotations

from typing import Annotated

import typer

from mixrec_automl.cli.trained import told

EXAMPLE = "Example: mixrec-automl promote first --workers 2"


def promote(
    name: Annotated[str, typer.Argument(help="A search with at least one completed trial.")],
    trial: Annotated[int | None, typer.Option(help="Promote this trial instead of the best one.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Data-parallel processes (default: promotion.workers of the search).")
    ] = None,
    from_trial: Annotated[
        bool,
        typer.Option("--from-trial", help="Begin with the weights of the trial's best epoch, instead of fresh ones."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a champion of other data, or one that cannot be read, unseen.")
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option(
            "--rollback",
            help="Train nothing: make the previous champion of the search's data champion again.",
        ),
    ] = False,
) -> None:
    """Train the winner on all users, evaluate it once on the test items, register it, and make it champion if it is
    better. Ctrl-C stops it cleanly; the same command goes on."""
    from mixrec_automl import paths
    from mixrec_automl.cli.tables import make_console, winner_table
    from mixrec_automl.config import from_dict
    from mixrec_automl.store.records import best_trial
    from mixrec_automl.store.repository import Repository
    from trainers.errors import UserError

    repository = Repository.open()
    search = repository.search(name)
    if "study" in search.config:
        raise UserError(f"{name!r} is a study, which keeps no weights: promote the winner of a search")
    config = from_dict(search.config, f"search {name}")
    if rollback:
        if trial is not None or workers is not None or from_trial or force:
            raise UserError("--rollback trains nothing: give it without --trial, --workers, --from-trial and --force")
        _roll_back(config.data.name)
        return
    trials = repository.trials(name)
    chosen = best_trial(trials) if trial is None else next((one for one in trials if one.number == trial), None)
    if chosen is None or chosen.mrr is None:
        what = "has no completed trial" if trial is None else f"has no completed trial {trial}"
        raise UserError(f"search {name!r} {what}: see `mixrec-automl show {name}`")
    console = make_console()
    console.print(winner_table(chosen.design, f"trial {chosen.number} of {name}, validation MRR {chosen.mrr:.4f}"))

    # torch, Ray and MLflow: seconds that a mistake above need not cost
    from mixrec_automl.promote import run_promotion
    from mixrec_automl.promotion import plan_promotion
    from trainers.data.prepare import open_or_prepare

    with console.status(f"data set {config.data.name}"):
        data = open_or_prepare(
            config.data.name, config.data.filters, paths.data_folder(config.data.name), paths.downloads_folder()
        )
    plan = plan_promotion(search, config, chosen, data, workers, from_trial=from_trial)
    given = {"--trial": trial, "--workers": workers}
    options = "".join(f" {option} {value}" for option, value in given.items() if value is not None)
    options += "".join(option for option, is_set in ((" --from-trial", from_trial), (" --force", force)) if is_set)
    told(
        plan,
        console,
        f"mixrec-automl promote {name}{options}",
        lambda: run_promotion(plan, search, chosen, data, repository, console, force=force),
    )


def _roll_back(data: str) -> None:
    from mixrec_automl import paths
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.registry import Registry, registered_name

    after, before = Registry(paths.tracking_uri()).roll_back(registered_name(data))
    make_console().print(
        f"{before} is the champion again, instead of version {after.version}",
        highlight=False,
    )
