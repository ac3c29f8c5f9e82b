"""`mixrec-automl study`: the paper's experiments as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mixrec_automl.search_config import SearchConfig
    from mixrec_automl.store.records import Search
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.studies.results import Row
    from mixrec_automl.studies.study import Study

app = typer.Typer(help="Run the paper's experiments and compare their variants.", no_args_is_help=True)

DEFAULT_DATA, SMOKE = "scientific-small", "smoke"
RUN_EXAMPLE = "Example: mixrec-automl study run ablation --data scientific-small --seeds 3"
SHOW_EXAMPLE = "Example: mixrec-automl study show study-ablation-scientific-small --slices"


def _of_somebody(share: float) -> float:
    from trainers.errors import UserError

    if share == 0:
        raise UserError("--user-share is 0: nobody is left")
    return share


UserShare = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        callback=_of_somebody,
        help="Share of the users that is trained on and tested: less for a quick look.",
    ),
]
Slices = Annotated[bool, typer.Option("--slices", help="Also by history length, popularity, repeat, cold.")]
ExcludeSeen = Annotated[
    bool, typer.Option("--exclude-seen", help="Leave the items of a user's history out of the ranking.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list", epilog="Example: mixrec-automl study list --json")
def list_(as_json: AsJson = False) -> None:
    """List the studies: the question of each, and its variants."""
    from rich.table import Table

    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.studies.catalogue import STUDIES

    if as_json:
        told = [
            {"name": study.name, "question": study.question, "figure": study.figure, "reference": study.reference}
            | {"variants": [variant.name for variant in study.variants]}
            for study in STUDIES
        ]
        typer.echo(json.dumps(told, indent=1))
        return
    table = Table("study", "paper", "question", "variants")
    for study in STUDIES:
        table.add_row(study.name, study.figure, study.question, ", ".join(one.name for one in study.variants))
    make_console().print(table)


@app.command("run", epilog=RUN_EXAMPLE)
def run(
    study_name: Annotated[str, typer.Argument(metavar="STUDY", help="One of `mixrec-automl study list`.")],
    data: Annotated[
        str | None, typer.Option(help=f"Prepared data set; the preset of its name is used (default: {DEFAULT_DATA}).")
    ] = None,
    config: Annotated[str | None, typer.Option(help="YAML file or preset to vary, instead of the data's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each variant.")] = 1,
    user_share: UserShare = 1.0,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIANT", help="Leave a variant out, e.g. RecFormer, the slowest; may be repeated."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the configuration; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to record it under (default: study-STUDY-DATA).")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Made-up data and a tiny random backbone: shows in seconds that it runs.")
    ] = False,
) -> None:
    """Run a study, or go on with it: every variant, seed by seed, tested once. The same command resumes it."""
    from mixrec_automl.config import load_config
    from mixrec_automl.presets import find_preset
    from mixrec_automl.studies.catalogue import find_study
    from trainers.errors import UserError

    study = find_study(study_name).without(without or [])
    if smoke and (data or config):
        raise UserError("--smoke brings its own data and configuration: leave out --data and --config")
    chosen = SMOKE if smoke else config or data or DEFAULT_DATA
    if config is None and find_preset(chosen) is None:
        raise UserError(f"there is no preset {chosen!r}: give a YAML file with --config")
    more = [f"data.name={data}"] if data and config else []
    base = load_config(chosen, [*more, *(overrides or [])])
    run_and_show(study, base, name or f"study-{study.name}-{base.data.name}", seeds, user_share)


def run_and_show(study: Study, base: SearchConfig, name: str, seeds: int, user_share: float) -> None:
    """Run `study` under `name`, print its table and what to type next.

    Raises:
        UserError: as `run_study`, or a name that cannot be.
        typer.Exit: it did not complete.
    """
    from mixrec_automl import paths
    from mixrec_automl.cli.outcome import require_completed, told_if_interrupted
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.store.repository import Repository

    recorded = paths.valid_name(name, "study")
    repository, console = Repository.open(), make_console()
    console.print(f"study {recorded}: {study.question}", highlight=False, markup=False)

    from mixrec_automl.studies.run import run_study
    from mixrec_automl.studies.study import training_seeds

    with told_if_interrupted(console):
        ended = run_study(study, base, training_seeds(base, seeds), recorded, repository, console, user_share)
    if ended.name == recorded:
        _print(repository.search(recorded), repository, console, exclude_seen=False, with_slices=False)
    require_completed(ended, console)
    console.print(f"next: mixrec-automl study show {recorded} --slices", highlight=False)


@app.command("show", epilog=SHOW_EXAMPLE)
def show(
    name: Annotated[str, typer.Argument(help="A study's name: see `mixrec-automl searches`.")],
    slices: Slices = False,
    exclude_seen: ExcludeSeen = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw it into this file (.png, .svg, .pdf).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the results of a study, also while it runs: each variant beside the reference, on the same users."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.store.repository import Repository
    from trainers.errors import UserError

    repository = Repository.open()
    study = repository.search(name)
    if "variants" not in study.config.get("study", {}):
        raise UserError(f"{name!r} is a search: see `mixrec-automl show {name}`")
    if as_json and plot is not None:
        raise UserError("--json prints and --plot draws: give one of them at a time")
    if as_json:
        from mixrec_automl.studies.tables import as_dicts

        rows = _rows(study, repository, exclude_seen=exclude_seen)
        typer.echo(json.dumps(as_dicts(rows), indent=1))
        return
    _print(study, repository, make_console(), exclude_seen=exclude_seen, with_slices=slices, plot_to=plot)


def _rows(study: Search, repository: Repository, *, exclude_seen: bool) -> tuple[Row, ...]:
    from mixrec_automl import paths
    from mixrec_automl.studies.results import study_rows
    from trainers.data.users import open_users

    folder = paths.runs_folder() / study.name
    budget = study.config["search"]
    data = open_users(paths.data_folder(study.config["data"]["name"]), budget["user_share"], budget["seed"])
    return study_rows(study, repository.trials(study.name), folder, data, exclude_seen=exclude_seen)


def _print(
    study: Search,
    repository: Repository,
    console: Console,
    *,
    exclude_seen: bool,
    with_slices: bool,
    plot_to: Path | None = None,
) -> None:
    from mixrec_automl import paths
    from mixrec_automl.studies.paper import TABLE_2, differences_to_paper
    from mixrec_automl.studies.study import base_of
    from mixrec_automl.studies.tables import plot, results_table, slices_table

    config, reference = base_of(study.config, study.name), study.config["study"]["reference"]
    rows = _rows(study, repository, exclude_seen=exclude_seen)
    paper = TABLE_2.get(config.data.name, {})
    ranked = ", seen items left out" if exclude_seen else ""
    share = config.search.user_share
    users = "all users" if share == 1 else f"{100 * share:.3g}% of the users"
    trained = "" if all(one.get("baseline") for one in study.config["study"]["variants"].values()) else _epochs(config)
    title = f"{study.name}: test items of {users}{trained}{ranked}"
    console.print(results_table(rows, reference=reference, title=title, paper=paper))
    differing = differences_to_paper(config)
    if paper and differing:
        console.print(f"not the paper's setting: {'; '.join(differing)}", highlight=False, markup=False)
    if with_slices:
        console.print(slices_table(rows))
    drawn = plot_to or paths.runs_folder() / study.name / "study.png"
    plot(rows, reference=reference, title=title, path=drawn)
    console.print(f"plot: {drawn}", highlight=False, markup=False, soft_wrap=True)


def _epochs(config: SearchConfig) -> str:
    """Of MixRec; the other models end at a plateau."""
    return f", {config.training.epochs} epoch{'' if config.training.epochs == 1 else 's'}"
