"""A search as one page: a file that needs nothing else, and its figures as files of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import mixrec_automl
from mixrec_automl.report import of_designs, over_time, trust
from mixrec_automl.report.advice import advice
from mixrec_automl.report.drawn import Drawn
from mixrec_automl.report.material import Material
from mixrec_automl.report.style import DARK, drawing, inline_svg, variables
from mixrec_automl.store.records import Trial, TrialState
from trainers.errors import UserError

PAGE = "report.html"
FIGURES = "figures"
PIXELS_PER_INCH = 200
DRAW: tuple[Callable[[Material], Drawn | None], ...] = (
    over_time.best_so_far,
    of_designs.winner,
    trust.comparison,
    trust.front,
    of_designs.all_designs,
    of_designs.bit_effects,
    of_designs.pair_effects,
    trust.calibration,
    trust.next_design,
    over_time.learning_curves,
    over_time.timeline,
)
"""In the order of the page; each says nothing of a search that has nothing for it"""
HEADINGS = (
    ("trial", True), ("design", False), ("proposed by", False), ("state", False), ("MRR", True), ("± users", True),
    ("epochs", True), ("minutes", True),
)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    cells: Sequence[str]
    is_best: bool


@dataclass(frozen=True)
class _Shown:
    name: str
    title: str
    caption: str
    svg: Markup


def write_report(material: Material, folder: Path) -> list[Path]:
    """Write the page, and each figure as SVG and PNG below `FIGURES`; files of these names are replaced.

    Returns:
        The page, then the figures.

    Raises:
        UserError: the search has no trial yet, or the folder cannot be written.
    """
    if not material.trials:
        raise UserError(f"search {material.search.name!r} has no trial yet, and so nothing to report")
    try:
        return _write(material, folder)
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror}") from error


def _write(material: Material, folder: Path) -> list[Path]:
    figures = folder / FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    shown, written = [], [page]
    with drawing():
        for draw in DRAW:
            one = draw(material)
            if one is None:
                continue
            drawn = [figures / f"{one.name}.{kind}" for kind in ("svg", "png")]
            one.figure.savefig(drawn[0], metadata={"Date": None})
            one.figure.savefig(drawn[1], dpi=PIXELS_PER_INCH)
            written += drawn
            # `inline_svg` escapes what it puts in; the rest is matplotlib's own.
            svg = Markup(inline_svg(one.figure, one.name, one.title))
            shown.append(_Shown(one.name, one.title, one.caption, svg))
    page.write_text(_page(material, shown), encoding="utf-8")
    return written


def _page(material: Material, figures: Sequence[_Shown]) -> str:
    loader = PackageLoader("mixrec_automl.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["with_code"] = _with_code
    return environment.get_template("page.html.jinja").render(
        search=material.search,
        summary=_summary(material),
        facts=_facts(material),
        figures=figures,
        advice=advice(material),
        headings=HEADINGS,
        rows=[_Row(_cells(material, trial), trial is material.best) for trial in material.trials],
        light=variables(),
        dark=variables(DARK),
        footer=f"mixrec-automl {mixrec_automl.__version__}; search of {material.search.created_at:%Y-%m-%d %H:%M} UTC",
    )


def _with_code(text: str) -> Markup:
    """What stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _summary(material: Material) -> str:
    config, best = material.config, material.best
    layers = f", first {config.backbone.layers} layers" if config.backbone.layers else ""
    where = f"{config.data.name}, {100 * config.search.user_share:.3g}% of its users, {config.backbone.name}{layers}"
    if best is None:
        return f"A search on {where}. No trial is completed yet."
    floors = material.search.floors
    beaten = ""
    if "popularity" in floors:
        beaten = f"; ranking by popularity alone has {floors['popularity']:.4f} on the same users"
    reached = material.best_scores
    of_several = f", the mean of {len(reached)} trainings" if len(reached) > 1 else ""
    return f"A search on {where}. The best design reaches a validation MRR of {fmean(reached):.4f}{of_several}{beaten}."


def _facts(material: Material) -> list[tuple[str, str]]:
    counts = {state: sum(trial.state is state for trial in material.trials) for state in TrialState}
    ended = [
        f"{count} {state.lower()}"
        for state, count in counts.items()
        if count and state in (TrialState.FAILED, TrialState.PRUNED)
    ]
    facts = [
        ("state", material.search.state.value),
        ("trials", f"{sum(trial.state.is_final for trial in material.trials)} of {material.config.search.trials}"),
        (
            "designs in the space",
            "with settings" if material.config.search.settings else f"{2.0**material.bits:,.0f}",
        ),
    ]
    if material.best is not None:
        facts += [("winner", f"trial {material.best.number}"), ("its design", str(material.best.architecture))]
    if ended:
        facts.append(("without result", ", ".join(ended)))
    promoted = [one.model_version for one in material.promoted if one.model_version]
    if promoted:
        facts.append(("registered as", promoted[-1]))
    return facts


def _cells(material: Material, trial: Trial) -> list[str]:
    begin, end = trial.started_at, trial.finished_at
    minutes = "" if begin is None or end is None else f"{(end - begin).total_seconds() / 60:.1f}"
    curve = material.curve(trial)
    return [
        str(trial.number),
        str(trial.design),
        trial.origin.short,
        trial.state.value.lower(),
        "" if trial.mrr is None else f"{trial.mrr:.4f}",
        "" if trial.standard_error is None else f"{trial.standard_error:.4f}",
        str(curve[-1][0]) if curve else "",
        minutes,
    ]
