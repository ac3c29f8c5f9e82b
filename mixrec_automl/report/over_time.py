"""Figures of the course of a search: what was reached when, how trainings went, what they took."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate
from statistics import fmean

from matplotlib.ticker import MaxNLocator

from mixrec_automl.report.drawn import Drawn, blank
from mixrec_automl.report.material import Material
from mixrec_automl.report.style import BLUE, FAINT, GREEN, ORANGE, PAPER, RED
from mixrec_automl.store.records import Origin, TrialState, fixed_design, scores

MARKS = {
    Origin.FIXED: "D",
    Origin.WARM_START: "^",
    Origin.SOBOL: "o",
    Origin.PROBABILISTIC_REPARAMETERIZATION: "s",
    Origin.REPLICATION: "x",
    Origin.CONFIRMATION: "P",
}
STATE_COLOURS = {
    TrialState.COMPLETED: BLUE,
    TrialState.FAILED: RED,
    TrialState.PRUNED: ORANGE,
    TrialState.RUNNING: GREEN,
    TrialState.QUEUED: FAINT,
}


def best_so_far(material: Material) -> Drawn | None:
    """Every completed trial, and the best of them at each moment."""
    done = material.completed
    if not done:
        return None
    deviation = material.seed_deviation
    figure, axes = blank(3.6)
    for origin, mark in MARKS.items():
        own = [trial for trial in done if trial.origin is origin]
        if own:
            numbers, values = [trial.number for trial in own], scores(own)
            axes.errorbar(
                numbers, values, yerr=deviation, fmt=mark, color=BLUE, ecolor=FAINT, elinewidth=0.8, markersize=5,
                label=str(origin),
            )  # fmt: skip
    best = list(accumulate(scores(done), max))
    axes.step([trial.number for trial in done], best, where="post", color=GREEN, label="best so far")
    of_fixed = fixed_design(done)
    fixed = scores(trial for trial in done if trial.design == of_fixed)
    if fixed:
        axes.axhline(fmean(fixed), color=FAINT, linestyle="--", linewidth=1, label="fixed design, mean")
    if "popularity" in material.search.floors:
        axes.axhline(material.search.floors["popularity"], color=ORANGE, linestyle=":", linewidth=1, label="popularity")
    axes.set(xlabel="trial", ylabel="validation MRR")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    caption = (
        f"Each mark is a trained design, in the order of proposal; its bar is one standard deviation between training "
        f"seeds ({deviation:.4f}, {'measured' if material.is_noise_measured else 'assumed'}). A step up that is "
        "shorter than a bar may be luck."
    )
    return Drawn("best-so-far", "Best so far", caption, figure)


def learning_curves(material: Material) -> Drawn | None:
    """Validation MRR by epoch, of every trial."""
    curves = {trial.number: material.curve(trial) for trial in material.trials}
    if not any(curves.values()):
        return None
    figure, axes = blank(3.6)
    told: set[str] = set()
    for trial in material.trials:
        if not curves[trial.number]:
            continue
        epochs, values = zip(*curves[trial.number], strict=True)
        is_best = material.best is not None and trial.number == material.best.number
        what = "winner" if is_best else trial.state.value.lower()
        colour = GREEN if is_best else STATE_COLOURS[trial.state]
        (line,) = axes.plot(epochs, values, color=colour, label=None if what in told else what)
        line.set(linewidth=2.2 if is_best else 1, alpha=1 if is_best else 0.6, zorder=3 if is_best else 2)
        told.add(what)
        if trial.state in (TrialState.FAILED, TrialState.PRUNED):
            axes.plot(epochs[-1], values[-1], "x" if trial.state is TrialState.FAILED else "v", color=colour)
    axes.set(xlabel="epoch", ylabel="validation MRR")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    caption = (
        "Validation MRR after each epoch. A cross ends a training that failed, a triangle one that was pruned. Where "
        "the curves still rise at their end, more epochs may change which design is best."
    )
    return Drawn("learning-curves", "Learning curves", caption, figure)


def timeline(material: Material) -> Drawn | None:
    """What ran when, side by side."""
    timed = [(trial, trial.started_at, trial.finished_at) for trial in material.trials]
    known = [(trial, begin, end) for trial, begin, end in timed if begin is not None and end is not None]
    if not known:
        return None
    known.sort(key=lambda one: one[1])
    first, last = known[0][1], max(end for _, _, end in known)
    free_from: list[datetime] = []
    figure, axes = blank(2.6)
    for trial, begin, end in known:
        lane = next((at for at, free in enumerate(free_from) if free <= begin), len(free_from))
        free_from[lane : lane + 1] = [end]
        start, length = (begin - first).total_seconds() / 60, (end - begin).total_seconds() / 60
        axes.barh(lane, length, left=start, color=STATE_COLOURS[trial.state], edgecolor=PAPER, height=0.8)
        if length > 0.03 * (last - first).total_seconds() / 60:
            axes.text(start + length / 2, lane, str(trial.number), ha="center", va="center", color=PAPER, fontsize=8)
    axes.set(xlabel="minutes since the first training began", ylabel="slot", yticks=range(len(free_from)))
    axes.set_yticklabels([str(lane + 1) for lane in range(len(free_from))])
    axes.grid(axis="y", visible=False)
    minutes = [(end - begin).total_seconds() / 60 for _, begin, end in known]
    proposing = sum(trial.proposal_seconds for trial in material.trials)
    caption = (
        f"The last attempt of each trial, with its number. These took {sum(minutes):.1f} minutes in all, "
        f"{sum(minutes) / len(minutes):.1f} each; designs were proposed in {proposing:.1f} seconds."
    )
    return Drawn("timeline", "What ran when", caption, figure)
