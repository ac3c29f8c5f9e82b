"""How a study's results look: a table, a table of slices, a plot, plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from mixrec_automl.studies.results import Row
from trainers.metrics import METRICS

SHORT = {"mrr": "MRR", "ndcg_at_10": "NDCG@10", "recall_at_10": "Recall@10"}
INCHES_A_ROW = 0.35


def results_table(
    rows: Sequence[Row], *, reference: str, title: str, paper: Mapping[str, Mapping[str, float]]
) -> Table:
    """One row a variant; `paper` holds what the paper prints of some of them."""
    signs = "±: deviation between training seeds; [ ]: 95 % over users, paired; p: Holm"
    table = Table(title=title, caption="\n".join([signs, *_starts(rows)]))
    table.add_column("variant", no_wrap=True)
    for name in ("seeds", "valid. MRR", *(SHORT[name] for name in METRICS)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"MRR minus {reference}", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    if paper:
        table.add_column("paper's MRR", justify="right")
    for row in rows:
        spread = f" ± {row.spread['mrr']:.4f}" if row.spread else ""
        cells = [row.name, str(len(row.seeds) or ""), _number(row.validation_mrr)]
        cells += [_number(row.metrics.get(name)) + (spread if name == "mrr" else "") for name in METRICS]
        difference = row.differences.get("mrr")
        cells.append("" if difference is None else _interval(difference.mean, difference.low, difference.high))
        cells.append("" if difference is None else f"{row.adjusted_p['mrr']:.3f}")
        if paper:
            cells.append(_number(paper.get(row.name, {}).get("mrr")))
        table.add_row(*cells, style="bold" if row.name == reference else None)
    return table


def slices_table(rows: Sequence[Row]) -> Table:
    """Test MRR of each slice of the users; a column for each slice that has any."""
    names = list(dict.fromkeys(name for row in rows for name in row.by_slice))
    table = Table("variant", title="test MRR by slice of the users")
    users = next((row.by_slice for row in rows if row.by_slice), {})
    for name in names:
        table.add_column(f"{name}\n{users[name][0]:,} users", justify="right")
    for row in rows:
        table.add_row(row.name, *(_number(row.by_slice[name][1] if name in row.by_slice else None) for name in names))
    return table


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {
            **asdict(row),
            "by_slice": {name: {"users": users, "mrr": mrr} for name, (users, mrr) in row.by_slice.items()},
        }
        for row in rows
    ]


def plot(rows: Sequence[Row], *, reference: str, title: str, path: Path) -> None:
    """Test MRR of every variant, with the interval of its difference to the reference, as a PNG or whatever the name
    of `path` says."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.metrics]
    figure = Figure(figsize=(8, 1.2 + INCHES_A_ROW * len(shown)), layout="constrained")
    axes = figure.subplots()
    at_reference = next((row.metrics["mrr"] for row in shown if row.name == reference), None)
    if at_reference is not None:
        axes.axvline(at_reference, color="0.6", linewidth=1)
    for place, row in enumerate(reversed(shown)):
        difference = row.differences.get("mrr")
        if difference is not None and at_reference is not None:
            axes.plot([at_reference + difference.low, at_reference + difference.high], [place, place], color="tab:blue")
        axes.plot([row.metrics["mrr"]], [place], "o", color="tab:red" if row.name == reference else "tab:blue")
    axes.set_yticks(range(len(shown)), [row.name for row in reversed(shown)])
    axes.set_xlabel(f"test MRR; bar: 95 % interval of the difference to {reference}, over users")
    axes.set_title(title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _starts(rows: Sequence[Row]) -> list[str]:
    """A line for each thing that some of the models started from."""
    known = dict.fromkeys(row.started_from for row in rows if row.started_from)
    return [f"{', '.join(row.name for row in rows if row.started_from == start)}: from {start}" for start in known]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
