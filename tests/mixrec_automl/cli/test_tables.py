"""What files and other programs wrote is shown as it is."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from mixrec_automl.cli.tables import plain, printable


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
