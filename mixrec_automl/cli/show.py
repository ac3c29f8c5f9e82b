"""`mixrec-automl show NAME`: one search, or one of its trials, as the database holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from mixrec_automl import paths
from mixrec_automl.cli.as_json import one_observation, one_trial, whole_search
from mixrec_automl.cli.tables import (
    curve_table,
    front_table,
    make_console,
    promotions_table,
    score,
    state_text,
    trials_table,
    when,
    winner_table,
)
from mixrec_automl.pareto import pareto_front
from mixrec_automl.store.records import (
    Origin,
    Search,
    SearchState,
    Trial,
    TrialState,
    best_trial,
    decisive,
    epochs_saved,
    fixed_design,
    last_epochs,
    replicates_of,
    scores,
)
from trainers.errors import UserError
from trainers.secrecy import without_secrets

if TYPE_CHECKING:
    from mixrec_automl.store.repository import Repository

EXAMPLE = "Example: mixrec-automl show my-search --trial 3"


def show(
    name: Annotated[str, typer.Argument(help="Name of a search: see `mixrec-automl searches`.")],
    trial: Annotated[int | None, typer.Option(help="Show this trial: its learning curve and its error.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show a search with all its trials and its winner."""
    from mixrec_automl.store.repository import Repository

    repository = Repository.open()
    search, trials = repository.search(name), repository.trials(name)
    if trial is not None:
        _show_trial(repository, search, trials, trial, as_json)
        return
    observations, promotions = repository.observations(name), repository.promotions(name)
    epochs = last_epochs(observations)
    if as_json:
        typer.echo(json.dumps(whole_search(search, trials, promotions, epochs), indent=2))
        return
    console = make_console()
    print_search(console, search, trials, epochs)
    if promotions:
        console.print(promotions_table(promotions))
    print_next_steps(console, search, trials)


def print_search(console: Console, search: Search, trials: Sequence[Trial], epochs: Mapping[int, int]) -> None:
    """State, trials and winner of a search; also the summary that closes a run of `search`."""
    planned = search.config.get("search", {}).get("trials", "?")
    ended = sum(trial.state.is_final for trial in trials)
    counts = {state: sum(trial.state is state for trial in trials) for state in (TrialState.FAILED, TrialState.PRUNED)}
    head = f"search [bold]{escape(search.name)}[/]: "
    without_result = (f", {count} of them {state.lower()}" for state, count in counts.items() if count)
    saved = epochs_saved(trials, epochs, search.planned_epochs)
    told = f", which saved {saved} epochs" if counts[TrialState.PRUNED] else ""
    tail = f", {ended} of {planned} trials ended{''.join(without_result)}{told}"
    console.print(head, state_text(search.state), tail, sep="", highlight=False)
    console.print(_what_was_searched(search), highlight=False, markup=False)
    if search.floors:
        console.print(_floors(search), highlight=False, markup=False)
    if search.state is SearchState.RUNNING:
        run_by = f"run by {search.controller}" if search.controller else "[yellow]no process runs it any more[/]"
        console.print(run_by, highlight=False)
        if search.slots_note:
            console.print(search.slots_note, highlight=False, markup=False, soft_wrap=True, style="yellow")
    if search.error:
        console.print(f"[red]error:[/] {escape(search.error)}", highlight=False)
    if trials:
        best = best_trial(trials)
        console.print(trials_table(console, trials, epochs, best, title="trials"))
        if best is not None and "study" not in search.config:
            what = "winner" if search.state is SearchState.COMPLETED else "best so far"
            title = f"{what}: trial {best.number}, MRR {score(best.mrr)} (standard error {score(best.standard_error)})"
            replicates = scores(replicates_of(best, decisive(trials)))
            if len(replicates) > 1:
                title += f", mean of {len(replicates)} replicates {score(fmean(replicates))}"
            console.print(winner_table(best.design, title=title))
            confirmed = _advantage(trials, best)
            if confirmed:
                console.print(confirmed, highlight=False, soft_wrap=True)
            if search.config.get("search", {}).get("second_objective"):
                console.print(front_table(pareto_front(trials), best))


def print_next_steps(console: Console, search: Search, trials: Sequence[Trial]) -> None:
    """Where everything is stored, and what to type next."""
    if search.tracking_error:
        console.print(
            f"[yellow]warning:[/] MLflow lags {search.changes_not_tracked} changes behind "
            f"({escape(search.tracking_error)}); the search is unaffected, and `mixrec-automl ui` catches up once it "
            "has ended",
            highlight=False,
        )
    elif search.changes_not_tracked:
        console.print(f"MLflow is {search.changes_not_tracked} changes behind", highlight=False)

    places = {
        "database": without_secrets(paths.database_url()),
        "MLflow": without_secrets(paths.tracking_uri()),
        "checkpoints": str(paths.runs_folder() / search.name),
    }
    commands = {}
    is_running = search.state is SearchState.RUNNING
    is_study = "study" in search.config
    if "variants" in search.config.get("study", {}):
        commands[f"mixrec-automl study show {search.name}"] = "compare its variants"
    elif best_trial(trials) is not None and not is_running and not is_study:
        commands[f"mixrec-automl promote {search.name}"] = "train the winner on all users and register it"
    if is_running and search.controller:
        commands[f"mixrec-automl stop {search.name}"] = "end it; it can be resumed"
    elif search.state is not SearchState.COMPLETED and not is_study:
        commands[f"mixrec-automl resume {search.name}"] = "go on with it"
    if best_trial(trials) is not None and not is_study:
        commands[f"mixrec-automl report {search.name}"] = "write a page of figures, and what to try next"
    if trials:
        commands[f"mixrec-automl show {search.name} --trial {_most_telling(trials).number}"] = "look at one trial"
    commands["mixrec-automl ui"] = "open MLflow"
    for title, lines in (("stored in", places), ("next", commands)):
        console.print(f"{title}:", highlight=False)
        width = max(map(len, lines))
        for left, right in lines.items():
            console.print(f"  {left:{width}}  {right}", highlight=False, markup=False, soft_wrap=True)


def _show_trial(repository: Repository, search: Search, trials: Sequence[Trial], number: int, as_json: bool) -> None:
    trial = next((one for one in trials if one.number == number), None)
    if trial is None:
        known = f"it has trials 0 to {len(trials) - 1}" if trials else "it has none yet"
        raise UserError(f"search {search.name} has no trial {number}: {known}")
    seen = repository.observations(search.name, number)
    epochs = last_epochs(seen)
    if as_json:
        found: dict[str, Any] = one_trial(trial, epochs.get(number, 0))
        typer.echo(json.dumps({**found, "observations": [one_observation(one) for one in seen]}, indent=2))
        return
    console = make_console()
    console.print(trials_table(console, [trial], epochs, None, title=f"search {search.name}"))
    console.print(winner_table(trial.design, title="design"))
    if seen:
        console.print(curve_table(console, seen))
    if trial.state is TrialState.PRUNED:
        told = f"pruned: {trial.error}; ended after epoch {epochs.get(number, 0)} of {search.planned_epochs}"
        console.print(told, highlight=False, markup=False, soft_wrap=True, style="yellow")
    elif trial.error:
        console.print(trial.error, highlight=False, markup=False, soft_wrap=True, style="red")


def _advantage(trials: Sequence[Trial], best: Trial) -> str:
    """What the confirmation says of the winner; empty before it has ended."""
    if best.origin is not Origin.CONFIRMATION:
        return ""
    from mixrec_automl.search.advantage import LEVEL, advantage_of_winner

    kind = "fixed" if best.design.settings else "all-serial"
    if best.design == fixed_design(trials):
        return f"trained again with new seeds, no other design was better than the {kind} one"
    found = advantage_of_winner(trials)
    if found is None:
        return ""
    chosen = f", corrected for the choice among {found.compared} designs" if found.compared > 1 else ""
    return (
        f"minus the {kind} design: {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}] "
        f"({LEVEL:.0%} over {found.seeds} new training seeds, on the same users{chosen})"
    )


def _floors(search: Search) -> str:
    """What a score must beat, on the same users."""
    told = (
        f"{name.replace('_', '-')} {score(value)} ({score(search.floors.get(name + '_unseen'))} without seen items)"
        for name, value in search.floors.items()
        if not name.endswith("_unseen")
    )
    return f"floors on the same users, validation MRR: {', '.join(told)}"


def _what_was_searched(search: Search) -> str:
    config, study = search.config, search.config.get("study", {})
    backbone, layers = config.get("backbone", {}).get("name"), config.get("backbone", {}).get("layers")
    depth = f" (first {layers} layer{'' if layers == 1 else 's'})" if layers else ""
    of = f"backbone {backbone}{depth}"
    if "model" in study:
        of = f"settings of {study['model']}"
    elif study and all(variant.get("baseline") for variant in study.get("variants", {}).values()):
        of = "no backbone"
    return f"data {config.get('data', {}).get('name')}, {of}, created {when(search.created_at)}"


def _most_telling(trials: Sequence[Trial]) -> Trial:
    """A trial worth a look: one that failed, else the best, else the newest."""
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    return failed[-1] if failed else best_trial(trials) or trials[-1]
