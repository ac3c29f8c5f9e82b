"""A figure with what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 7.0
"""Inches"""


@dataclass(frozen=True)
class Drawn:
    """One figure of a report."""

    name: str
    """Of its files"""
    title: str
    caption: str
    """What it shows and how to read it, in sentences"""
    figure: Figure


def blank(height: float) -> tuple[Figure, Axes]:
    """A figure of `height` inches with one pair of axes. No window belongs to it."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()
