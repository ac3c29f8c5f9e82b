"""How the figures look: drawn once, in colours that a page may replace for a dark background."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

INK, FAINT, GRID, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
BLUE, ORANGE, GREEN, RED, SERIAL = "#0969da", "#bc4c00", "#1a7f37", "#cf222e", "#eaeef2"
DARK = {
    INK: "#e6edf3",
    FAINT: "#9198a1",
    GRID: "#3d444d",
    PAPER: "#0d1117",
    BLUE: "#4493f8",
    ORANGE: "#db6d28",
    GREEN: "#3fb950",
    RED: "#f85149",
    SERIAL: "#2a313c",
}
"""What takes the place of each on a dark background; both have a contrast of 4.5 and more for text (WCAG AA)"""
NAMES = {colour: f"--c{place}" for place, colour in enumerate(DARK)}
"""CSS variable of each"""

_SETTINGS = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "mixrec",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Figures that are made and saved within it are in our style."""
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]  # its stubs want each key as a literal
        yield


def variables(colours: dict[str, str] | None = None) -> str:
    """CSS declarations of the variables in `inline_svg`: as drawn, or with these in their place."""
    return " ".join(f"{name}: {(colours or {}).get(colour, colour)};" for colour, name in NAMES.items())


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """For a page: it fills its container's width, its colours are CSS variables, and `label` is read for it.

    Args:
        name: of this figure alone, among those of the page.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in NAMES.items():
        svg = re.sub(re.escape(colour), f"var({variable})", svg, flags=re.IGNORECASE)
    # The page has many: what one defines must not be found by another.
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert size is not None
    svg = svg.replace(size[0], 'width="100%"', 1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
