"""`mixrec-automl baselines`: the other models of Table 2, under the same split and evaluator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mixrec_automl.cli.study import SMOKE, AsJson, ExcludeSeen, Slices, UserShare, run_and_show

if TYPE_CHECKING:
    from mixrec_automl.search_config import SearchConfig
    from mixrec_automl.store.records import Search
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.studies.results import VariantRanks
    from trainers.baselines.config import BaselineName
    from trainers.data.sequence_data import SequenceData

app = typer.Typer(help="Train other models on your data and compare all that was tested on it.", no_args_is_help=True)

RUN_EXAMPLE = "Example: mixrec-automl baselines run sasrec gru4rec --data ml-100k --seeds 3"
COMPARE_EXAMPLE = "Example: mixrec-automl baselines compare --data ml-100k --reference SASRec"


@app.command("run", epilog=RUN_EXAMPLE)
def run(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="gru4rec, sasrec, bert4rec, fdsa, p5, unisrec, recformer, mf, ncf; or all."
        ),
    ],
    data: Annotated[str | None, typer.Option(help="Prepared data set: see `mixrec-automl data list`.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each model.")] = 1,
    user_share: UserShare = 1.0,
    tune: Annotated[
        int, typer.Option(min=0, help="First search for each model's settings with so many trials of 64 settings.")
    ] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Models that train at the same time, each on one core.")] = 2,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="E.g. baselines.sasrec.dropout=0.2; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to record it under.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Made-up data, two epochs: shows that it runs.")] = False,
) -> None:
    """Train models to a plateau of the validation MRR and test them once. The same command goes on with it.

    Floors that need no training (popularity, repeat-last, item-knn, markov) stand in every table.
    """
    from mixrec_automl import paths
    from mixrec_automl.config import load_config, with_overrides, with_settings
    from mixrec_automl.studies.catalogue import baseline_study
    from trainers.baselines.config import BaselineName
    from trainers.errors import UserError

    known = get_args(BaselineName)
    chosen = known if models == ["all"] else tuple(dict.fromkeys(models))
    for model in chosen:
        if model not in known:
            raise UserError(f"there is no model {model!r}: choose from {', '.join(known)}, or all")
    if smoke == (data is not None):
        raise UserError("give either --data NAME or --smoke, which brings its own data")
    base = load_config(SMOKE) if data is None else configuration_of(data)
    one = {"cluster.workers_per_trial": 1, "cluster.shard_backbone": False, "cluster.cpus_per_worker": 1}
    machines = {"cluster.slots": slots, **one}
    base = with_overrides(with_settings(base, machines, "--slots"), overrides or [], base.data.name)
    wanted = cast("tuple[BaselineName, ...]", chosen)
    called = "all" if chosen == known else "-".join(chosen)
    tuned = f"-tuned-{tune}" if tune else ""
    recorded = paths.valid_name(name or f"baselines-{called}-{base.data.name}{tuned}", "study")
    if tune:
        _refuse_tuned_keys(wanted, overrides or [])
        base = _tuned(wanted, base, recorded, tune, user_share)
    run_and_show(baseline_study(wanted, tune), base, recorded, seeds, user_share)


def _refuse_tuned_keys(models: tuple[BaselineName, ...], overrides: list[str]) -> None:
    """Raises UserError where `overrides` gives what is to be searched for."""
    from trainers.baselines.spaces import SPACES
    from trainers.errors import UserError

    tuned = {f"baselines.{model}.{choice.key}" for model in models for choice in SPACES[model].choices}
    for key in (override.partition("=")[0].strip() for override in overrides):
        if key in tuned:
            raise UserError(f"--tune searches for {key}: leave out either --tune or --set {key}")


def _tuned(
    models: tuple[BaselineName, ...], base: SearchConfig, name: str, trials: int, user_share: float
) -> SearchConfig:
    """`base` with the best settings of each model, whose searches are recorded as NAME-MODEL-tuning.

    Raises:
        typer.Exit: a search does not complete.
    """
    from dataclasses import replace

    from mixrec_automl.cli.outcome import require_completed, told_if_interrupted
    from mixrec_automl.cli.show import print_search
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.config import with_settings
    from mixrec_automl.store.records import last_epochs
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.studies.tune import tune

    repository, console = Repository.open(), make_console()
    asked = replace(base, search=replace(base.search, user_share=user_share))
    for model in models:
        with told_if_interrupted(console):
            ended, found = tune(model, asked, f"{name}-{model}-tuning", trials, repository, console)
        tried = repository.trials(ended.name)
        print_search(console, ended, tried, last_epochs(repository.observations(ended.name)))
        require_completed(ended, console)
        chosen = ", ".join(f"{key} = {value}" for key, value in found.items())
        console.print(f"chosen: {chosen}", highlight=False, markup=False, soft_wrap=True)
        base = with_settings(base, found, f"the space of {model}")
    return base


@app.command("compare", epilog=COMPARE_EXAMPLE)
def compare(
    data: Annotated[str, typer.Option(help="Prepared data set: see `mixrec-automl data list`.")],
    reference: Annotated[
        str | None, typer.Option(help="Row to compare with (default: the best on the validation items).")
    ] = None,
    user_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Results on this share of the users; others do not compare.")
    ] = 1.0,
    exclude_seen: ExcludeSeen = False,
    slices: Slices = False,
    as_json: AsJson = False,
) -> None:
    """Compare, user by user, all that `study run main` and `baselines run` tested on a data set, and the floors."""
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.store.repository import Repository
    from mixrec_automl.studies.paper import TABLE_2
    from mixrec_automl.studies.results import compared
    from mixrec_automl.studies.tables import as_dicts, results_table, slices_table
    from trainers.errors import UserError

    repository = Repository.open()
    found, users = tested_on(data, user_share, repository, exclude_seen=exclude_seen)
    scored = [one for one in found if one.validation_mrr is not None]
    best = max(scored, key=lambda one: one.validation_mrr or 0.0).name
    if reference is not None and reference not in {one.name for one in found}:
        raise UserError(f"nothing called {reference!r} was tested: choose from {', '.join(one.name for one in found)}")
    beside = reference or best
    rows = compared(found, users, beside, exclude_seen=exclude_seen)
    if as_json:
        typer.echo(json.dumps(as_dicts(rows), indent=1))
        return
    console = make_console()
    ranked = ", seen items left out" if exclude_seen else ""
    title = f"all models on {data}: test items of {users.num_users:,} users{ranked}"
    console.print(results_table(rows, reference=beside, title=title, paper=TABLE_2.get(data, {})))
    if slices:
        console.print(slices_table(rows))


def configuration_of(data: str) -> SearchConfig:
    """The preset of the data's name, or all defaults where there is none. Raises ConfigError."""
    from mixrec_automl.config import from_dict, load_config
    from mixrec_automl.presets import find_preset

    return from_dict({"data": {"name": data}}, "--data") if find_preset(data) is None else load_config(data)


def tested_on(
    data: str, user_share: float, repository: Repository, *, exclude_seen: bool
) -> tuple[list[VariantRanks], SequenceData]:
    """What the newest study of each variant found on `data`, and the users of it.

    Raises:
        UserError: nothing has been tested there.
    """
    from mixrec_automl import paths
    from mixrec_automl.studies.catalogue import BASELINE_STUDY
    from mixrec_automl.studies.results import variants_of
    from trainers.data.users import open_users
    from trainers.errors import UserError

    def is_meant(study: Search) -> bool:
        config = study.config
        is_study = config.get("study", {}).get("name") in ("main", BASELINE_STUDY)
        return is_study and config["data"]["name"] == data and config["search"]["user_share"] == user_share

    variants: dict[str, VariantRanks] = {}
    users: SequenceData | None = None
    for study in filter(is_meant, repository.searches()):  # newest first
        folder = paths.runs_folder() / study.name
        try:
            found = variants_of(study, repository.trials(study.name), folder, exclude_seen=exclude_seen)
        except UserError as error:
            typer.echo(f"left out: {study.name}: {error}", err=True)
            continue
        tested = [one for one in found if one.ranks]
        if tested and users is None:
            users = open_users(paths.data_folder(data), user_share, study.config["search"]["seed"])
        for one in tested:
            if users is not None and {ranks.fingerprint for ranks in one.ranks.values()} == {users.fingerprint}:
                variants.setdefault(one.name, one)
            else:
                typer.echo(f"left out: {one.name} of {study.name}: the data was another", err=True)
    share = "" if user_share == 1 else f" --user-share {user_share:g}"
    if not variants or users is None:
        raise UserError(
            f"nothing has been tested on {data!r} with --user-share {user_share:g}: run first "
            f"`mixrec-automl baselines run all --data {data}{share}`"
        )
    return list(variants.values()), users
