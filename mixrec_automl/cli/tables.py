"""Rich tables of trials and designs, for `show`, `searches` and the summary that closes a search."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixrec_automl.pareto import Efficient
from mixrec_automl.store.records import Observation, Origin, Promotion, SearchState, Trial, TrialState
from search_spaces.architecture import SITES, Placement
from search_spaces.design import Design, shown

PIPED_WIDTH = 160
WIDEST = 10_000
"""More than any table asks for"""
BLOCKS = "▁▂▃▄▅▆▇█"
TOLD_OF_PROMOTIONS = ("test_mrr", "test_ndcg_at_10", "test_recall_at_10", "test_mrr_minus_popularity")
"""Metrics that a row has room for; `--json` prints all."""
TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Unicode's classes of characters that turn the direction of what follows"""
STYLES: Mapping[str, str] = {
    TrialState.QUEUED: "dim",
    TrialState.RUNNING: "cyan",
    TrialState.COMPLETED: "green",
    TrialState.FAILED: "red",
    TrialState.PRUNED: "yellow",
    SearchState.STOPPED: "yellow",
}


def make_console() -> Console:
    """Standard output; wide enough to cut nothing where it is no terminal."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def printable(text: str) -> str:
    """What a file or another program wrote, in one line, with nothing that a terminal would obey."""
    return "".join(_printable(one) for one in text)


def _printable(character: str) -> str:
    if character.isspace():  # a line feed, but also the space that does not break
        return " "
    is_obeyed = unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in TURNS
    return "\N{REPLACEMENT CHARACTER}" if is_obeyed else character


def plain(text: str) -> Text:
    """`printable`, and no markup."""
    return Text(printable(text))


def winner_table(design: Design, title: str | None = None) -> Table:
    """A design as an L x 3 table: a row for each DAMoE layer from the input up, a column for each adapter; settings are
    told below it."""
    settings = "\n".join(f"{key}: {shown(value)}" for key, value in design.settings)
    table = Table("DAMoE layer", *SITES, title=title, caption=settings or None)
    for number, layer in enumerate(design.architecture.layers, start=1):
        cells = (Placement(bit) for bit in layer.bits)
        table.add_row(
            str(number),
            *(Text(one.name.lower(), style="bold magenta" if one is Placement.PARALLEL else "") for one in cells),
        )
    return table


def front_table(front: Sequence[Efficient], best: Trial) -> Table:
    """A row for each design of a Pareto front; the winner, `best`, is set in bold."""
    is_confirmed = best.origin is Origin.CONFIRMATION
    winner = "The winner, in bold where it is here, is the best of those that were confirmed. " if is_confirmed else ""
    table = Table(
        title="Pareto front: the best MRR at every size",
        caption="expected: the mean of its trainings, moved to the median of all designs by as much as may be luck.\n"
        f"{winner}Any trial can be promoted.",
    )
    table.add_column("trainable parameters", justify="right", no_wrap=True)
    table.add_column("expected MRR", justify="right")
    table.add_column("mean of trainings", justify="right")
    table.add_column("best trial", justify="right")
    table.add_column("design", overflow="fold")
    for one in front:
        table.add_row(
            f"{one.trainable_parameters:,}",
            score(one.expected_mrr),
            f"{score(one.mean_mrr)} of {len(one.trials)}{', confirmed' if one.is_confirmed else ''}",
            str(one.best_trial),
            str(one.design),
            style="bold" if one.design == best.design else "",
        )
    return table


Cell = Callable[[Trial], Text | str]


def trials_table(
    console: Console, trials: Sequence[Trial], epochs: Mapping[int, int], best: Trial | None, title: str
) -> Table:
    """One row a trial; `epochs` holds the last recorded epoch of each, `best` is set in bold.

    Variants that share one design, as the settings of a baseline do, do not show it.
    """
    is_study = any(trial.variant for trial in trials)
    words: dict[str, Cell] = {"#": lambda trial: str(trial.number)}
    if is_study:
        words["variant"] = lambda trial: plain(trial.variant or "")
    if not is_study or len({trial.architecture for trial in trials}) > 1:
        words["design"] = lambda trial: str(trial.architecture)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    short = [key.rpartition(".")[2] for key in keys]
    for key, name in zip(keys, short, strict=True):
        words[name if short.count(name) == 1 else key] = partial(_setting, key)
    words |= {"origin": lambda trial: trial.origin.short, "state": lambda trial: state_text(trial.state, trial.attempt)}
    numbers: dict[str, Cell] = {
        "epochs": lambda trial: str(epochs.get(trial.number, "")),
        "MRR": lambda trial: score(trial.mrr),
        "± s.e.": lambda trial: score(trial.standard_error),
        "seconds": _seconds,
        "proposal s": lambda trial: f"{trial.proposal_seconds:.1f}",
    }
    cells = words | numbers

    def without(left_out: Collection[str]) -> Table:
        shown = [name for name in cells if name not in left_out]
        table = Table(title=title)
        for name in shown:
            is_number = name in numbers or name == "#"
            table.add_column(
                name,
                justify="right" if is_number else "left",
                no_wrap=is_number or name == "design",
                overflow="fold",
            )
        for trial in trials:
            is_best = best is not None and trial.number == best.number
            table.add_row(*(cells[name](trial) for name in shown), style="bold" if is_best else None)
        return table

    return fitting(console, without, ("proposal s", "± s.e.", "seconds", "origin", "epochs"))


def _setting(key: str, trial: Trial) -> Text:
    return plain(shown(trial.settings[key]))


def curve_table(console: Console, observations: Sequence[Observation]) -> Table:
    """A trial epoch by epoch; errors and counts of users and tokens are left to `--json`."""
    every = dict.fromkeys(name for seen in observations for name in seen.metrics)
    names = {
        name: name.removeprefix("validation_").replace("_at_", "@").replace("_", " ")
        for name in every
        if not name.endswith(("_error", "_users")) and name != "tokens"
    }
    scores = [seen.metrics["validation_mrr"] for seen in observations if "validation_mrr" in seen.metrics]

    def without(left_out: Collection[str]) -> Table:
        shown = {name: heading for name, heading in names.items() if name not in left_out}
        first = [name for name in ("epoch", "attempt") if name not in left_out]
        table = Table(*first, *shown.values(), title="learning curve", caption=f"validation MRR {sparkline(scores)}")
        for column in table.columns:
            column.justify = "right"
        for seen in observations:
            places = {"epoch": str(seen.epoch), "attempt": str(seen.attempt)}
            cells = (f"{seen.metrics[name]:.4g}" if name in seen.metrics else "" for name in shown)
            table.add_row(*(places[name] for name in first), *cells)
        return table

    parts = [name for name in names if name.startswith("loss_") and name != "loss_total"]
    return fitting(console, without, ("attempt", *reversed(parts), "seconds", "loss_total"))


def fitting(console: Console, without: Callable[[Collection[str]], Table], least_first: Sequence[str]) -> Table:
    """The table less as few of the columns `least_first` as lets the others be read; `--json` has them all."""
    wide = console.options.update_width(WIDEST)
    for count in range(len(least_first) + 1):
        table = without(least_first[:count])
        if console.measure(table, options=wide).maximum <= console.width:
            break
    return table


def sparkline(values: Sequence[float]) -> str:
    """A block for each value, from the lowest of them to the highest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    steps = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * steps)] for value in values)


def promotions_table(promotions: Iterable[Promotion]) -> Table:
    table = Table("#", "trial", "state", "model", "test metrics", title="promotions")
    for promotion in promotions:
        metrics = ", ".join(
            f"{name} {promotion.metrics[name]:.4f}" for name in TOLD_OF_PROMOTIONS if name in promotion.metrics
        )
        state = state_text(promotion.state)
        said = promotion.error.strip().splitlines()[-1] if promotion.error and promotion.error.strip() else metrics
        table.add_row(str(promotion.number), str(promotion.trial), state, promotion.model_version or "", plain(said))
    return table


def state_text(state: TrialState | SearchState, attempt: int = 1) -> Text:
    suffix = f" (attempt {attempt})" if attempt > 1 else ""
    return Text(f"{state}{suffix}", style=STYLES.get(state, ""))


def score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _seconds(trial: Trial) -> str:
    if trial.started_at is None or trial.state is TrialState.QUEUED:
        return ""
    return f"{((trial.finished_at or datetime.now(UTC)) - trial.started_at).total_seconds():.0f}"
