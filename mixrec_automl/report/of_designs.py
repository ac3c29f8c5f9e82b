"""Figures of the designs: the winner, all that were tried, and what their bits are worth."""

from __future__ import annotations

from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mixrec_automl.report.drawn import Drawn, blank
from mixrec_automl.report.material import Material
from mixrec_automl.report.style import BLUE, FAINT, GRID, INK, PAPER, SERIAL
from mixrec_automl.search.effects import LEVEL, Effect
from search_spaces.architecture import BITS_PER_LAYER, SITES

SHORT_SITES = ("causal", "context", "recommend.")
MOST_DESIGNS, MOST_PAIRS = 60, 10


def winner(material: Material) -> Drawn | None:
    """Its adapters, layer by layer."""
    if material.best is None:
        return None
    layers = material.best.design.architecture.layers
    figure, axes = blank(1.2 + 0.32 * len(layers))
    for row, layer in enumerate(layers):
        for column, bit in enumerate(layer.bits):
            _cell(axes, column, row, bit)
            axes.text(
                column, row, "parallel" if bit else "serial", ha="center", va="center", fontsize=9,
                color=PAPER if bit else INK,
            )  # fmt: skip
    axes.set_xticks(range(BITS_PER_LAYER), SITES)
    axes.set_yticks(range(len(layers)), [f"layer {number}" for number in range(1, len(layers) + 1)])
    _as_map(axes, BITS_PER_LAYER, len(layers))
    settings = "".join(f"; {key} {value}" for key, value in material.best.design.settings)
    reached = material.best_scores
    of_several = f" (mean of {len(reached)} trainings of the design {fmean(reached):.4f})" if len(reached) > 1 else ""
    caption = (
        f"Trial {material.best.number}, validation MRR {material.best.mrr:.4f}{of_several}{settings}. "
        "The input enters at the top; layers are those with adapters. An adapter is serial (it reads the output of "
        "the frozen module) or parallel (it reads its input)."
    )
    return Drawn("winner", "The winner", caption, figure)


def all_designs(material: Material) -> Drawn | None:
    """The bits of every design, the best first."""
    groups = material.scores_by_design
    means = {design: fmean(own) for design, own in groups.items()}
    ranked = sorted(means, key=lambda design: -means[design])
    if len(ranked) < 2 or len({len(design.architecture.bits) for design in ranked}) > 1:
        return None  # of other depths: a column would be another layer in each row
    shown = ranked[:MOST_DESIGNS]
    figure, axes = blank(1.2 + 0.2 * len(shown))
    for row, design in enumerate(shown):
        for column, bit in enumerate(design.architecture.bits):
            _cell(axes, column, row, bit)
    counts = [len(groups[design]) for design in shown]
    labels = [
        f"{means[design]:.4f}{f' x{count}' if count > 1 else ''}" for design, count in zip(shown, counts, strict=True)
    ]
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    bits = len(shown[0].architecture.bits)
    axes.set_xticks(
        [BITS_PER_LAYER * layer + 1 for layer in range(bits // BITS_PER_LAYER)],
        [f"layer {layer + 1}" for layer in range(bits // BITS_PER_LAYER)],
        fontsize=7,
        rotation=90 if bits > 24 else 0,
    )
    for layer in range(1, bits // BITS_PER_LAYER):
        axes.axvline(BITS_PER_LAYER * layer - 0.5, color=FAINT, linewidth=1)
    _as_map(axes, bits, len(shown))
    rest = f" The best {MOST_DESIGNS} of {len(ranked)}." if len(ranked) > MOST_DESIGNS else ""
    alike = " Rows that look alike differ in their settings." if material.config.search.settings else ""
    caption = (
        f"A row for each design with its mean validation MRR (and how often it was trained), a column for each bit: "
        f"{', '.join(SITES)} of each layer. Blue is parallel.{rest} Columns of one colour at the top are bits that "
        f"good designs agree on.{alike}"
    )
    return Drawn("designs", "All designs, the best first", caption, figure)


def bit_effects(material: Material) -> Drawn | None:
    """Of each bit."""
    found = material.explanation
    if found is None:
        return None
    figure, axes = blank(1.1 + 0.19 * len(found.effects))
    _effects(axes, found.effects)
    sure = sum(effect.is_sure for effect in found.effects)
    caption = (
        f"What the surrogate expects a parallel adapter to change in MRR, instead of a serial one, over all designs; "
        f"{LEVEL:.0%} intervals for all bits at once. {sure} of {len(found.effects)} leave zero out."
    )
    return Drawn("bit-effects", "What each bit is worth", caption, figure)


def pair_effects(material: Material) -> Drawn | None:
    """Of the pairs that do most together."""
    found = material.explanation
    if found is None or len(found.pairs) < 2:
        return None
    shown = found.pairs[:MOST_PAIRS]
    figure, axes = blank(1.1 + 0.22 * len(shown))
    _effects(axes, shown)
    caption = (
        f"The {len(shown)} pairs, of {len(found.pairs)}, whose bits change each other's effect most: what the second "
        f"does where the first is parallel, less what it does where that is serial; {LEVEL:.0%} intervals for all "
        f"{len(found.pairs)} at once."
    )
    return Drawn("pair-effects", "Pairs that act together", caption, figure)


def called(bit: int) -> str:
    """Layer, from 1, and adapter of a bit."""
    return f"{bit // BITS_PER_LAYER + 1} {SHORT_SITES[bit % BITS_PER_LAYER]}"


def _effects(axes: Axes, effects: list[Effect]) -> None:
    for row, effect in enumerate(effects):
        colour = BLUE if effect.is_sure else FAINT
        axes.plot([effect.low, effect.high], [row, row], color=colour, linewidth=1.5)
        axes.plot(effect.mean, row, "o", color=colour, markersize=4)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(effects)), [" & ".join(map(called, effect.bits)) for effect in effects], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("change of validation MRR")


def _cell(axes: Axes, column: int, row: int, bit: int) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=BLUE if bit else SERIAL, edgecolor=GRID))


def _as_map(axes: Axes, columns: int, rows: int) -> None:
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
