"""What files and other programs wrote is shown as it is."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.table import Table

from mixrec_automl.cli.tables import curve_table, plain, printable, sparkline, trials_table
from mixrec_automl.store.records import Observation, Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.design import Design


def test_a_title_is_neither_markup_nor_obeyed_by_a_terminal() -> None:
    titles = ["[bold]Lamp[/bold]", "[/]", "[link=http://evil]x", "\x1b[31mred\x1b]0;title\x07"]
    table = Table("title")
    for title in titles:
        table.add_row(plain(title))
    written = io.StringIO()
    Console(file=written, width=200, force_terminal=True, color_system=None).print(table)
    told = written.getvalue()
    assert all(title in told for title in titles[:3])
    assert "\x1b" not in told.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "red" in told


def test_what_harms_nobody_is_shown_as_it_is() -> None:
    assert (
        printable("Tee\u00a0Kanne, caf\u00e9 \U0001f469\u200d\U0001f373")
        == "Tee Kanne, caf\u00e9 \U0001f469\u200d\U0001f373"
    )
    assert printable("a\nb\u202egnp.exe\x1b") == "a b\N{REPLACEMENT CHARACTER}gnp.exe\N{REPLACEMENT CHARACTER}"


SETTINGS = (("model.dropout", 0.1), ("baselines.sasrec.dropout", 0.2))
TRIAL = Trial(
    3, Design(Architecture.parse("101-101-110-000"), SETTINGS), 0, Origin.SOBOL, TrialState.COMPLETED, 1, 0.1, mrr=0.5
)
METRICS = {f"loss_{part}": 1.2345 for part in ("seq", "align", "contrastive", "collaborative", "total")}
METRICS |= {f"validation_{name}": 0.12345 for name in ("mrr", "ndcg_at_10", "recall_at_10", "mrr_error")}
CURVE = [
    Observation(3, 1, epoch, {**METRICS, "seconds": 1.5, "tokens": 9.0}, datetime.now(UTC)) for epoch in range(1, 13)
]


def printed(width: int, *tables: str) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    made = {"trials": trials_table(console, [TRIAL], {3: 12}, None, ""), "curve": curve_table(console, CURVE)}
    for name in tables:
        console.print(made[name])
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [200, 100, 80, 60])
def test_a_narrow_terminal_loses_whole_columns_and_no_letter(width: int) -> None:
    told = printed(width, "trials", "curve") if width >= 80 else printed(width, "curve")
    assert "…" not in told
    assert "0.1235" in told
    assert max(map(len, told.splitlines())) <= width


def test_a_wide_one_has_them_all() -> None:
    told = printed(200, "trials", "curve")
    for heading in ("± s.e.", "proposal s", "model.dropout", "baselines.sasrec.dropout", "attempt", "loss align"):
        assert heading in told
    assert "tokens" not in told
    assert "error" not in told


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0.0, 0.5, 1.0, 0.0]) == "▁▅█▁"
    assert sparkline([0.3, 0.3]) == "▁▁"
    assert sparkline([]) == ""
