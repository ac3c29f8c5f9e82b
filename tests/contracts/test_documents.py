"""The documents say what is so: generated pages are up to date, and what they point to exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixrec_automl.configuration_reference import reference
from tests.contracts.repository import DOCUMENTS, ROOT
from tests.contracts.site import build_site

FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]+\.(?:py|md|yaml|toml)")


def test_the_page_of_the_configuration_is_up_to_date() -> None:
    written = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert written == reference(), "out of date: run `make docs`"


def test_the_page_of_the_commands_is_up_to_date(tmp_path: Path) -> None:
    made = tmp_path / "commands.md"
    typer = Path(sys.executable).with_name("typer")
    command = [typer, "mixrec_automl.cli.app", "utils", "docs", "--name", "mixrec-automl", "--title", "Commands"]
    subprocess.run([*command, "--output", made], check=True, capture_output=True, cwd=ROOT)
    assert (ROOT / "docs/commands.md").read_text("utf-8") == made.read_text("utf-8"), "out of date: run `make docs`"


def test_the_site_builds_and_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    build_site(tmp_path / "site")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    asked = {page: _asked_for(page.read_text("utf-8")) for page in pages}
    assert any(one.endswith(".css") for one in asked[tmp_path / "site" / "index.html"]), "the check sees style sheets"
    assert any(one.endswith(".js") for one in asked[tmp_path / "site" / "index.html"]), "the check sees scripts"
    assert any(one.endswith("report.png") for one in asked[tmp_path / "site" / "index.html"]), "the check sees pictures"
    assert {
        page.name: elsewhere for page, all_ in asked.items() if (elsewhere := [one for one in all_ if "//" in one])
    } == {}


def _asked_for(page: str) -> list[str]:
    """What a browser fetches for it: addresses of scripts, pictures, frames, and of links that are no mere relation."""
    found = [
        found
        for tag in re.findall(r"<(?:script|img|iframe)\b[^>]*>", page)
        for found in re.findall(r'\ssrc="([^"]+)"', tag)
    ]
    for tag in re.findall(r"<link\b[^>]*>", page):
        if not re.search(r'rel="?(?:canonical|prev|next|alternate)\b', tag):
            found += re.findall(r'href="?([^"\s>]+)', tag)
    return found


def test_every_key_of_the_configuration_has_a_meaning() -> None:
    """Inherited ones too."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert not [row for row in rows if row.rstrip(" |").endswith("|") or not row.split("|")[-2].strip()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8"))
    local = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = {name for span in re.findall(r"`([^`\n]+)`", document.read_text("utf-8")) for name in FILE.findall(span)}
    missing = [name for name in sorted(named) if not (ROOT / name).exists() and not (ROOT / "tests" / name).exists()]
    assert missing == []


def test_the_table_of_the_paper_names_files_and_tests_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.M)[1:]
    assert len(rows) > 30
    for section, _what, files, tests in rows:
        for name in re.findall(r"`([^`]+)`", files):
            path, _, symbol = name.partition(":")
            assert (ROOT / path).is_file(), f"{section}: {path}"
            assert symbol in (ROOT / path).read_text("utf-8"), f"{section}: {name}"
        for name in re.findall(r"`([^`]+)`", tests):
            path, _, test = name.partition(":")
            found = ROOT / "tests" / path
            assert found.is_file(), f"{section}: tests/{path}"
            assert not test or re.search(rf"^def test_{test}\b", found.read_text("utf-8"), re.M), f"{section}: {name}"


def test_every_section_and_ruling_is_in_the_table() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    sections = {cell.strip() for cell in re.findall(r"^\| ([^|]+) \|", text, re.M)}
    wanted = {*(f"2.2.{part}" for part in range(1, 6)), *(f"2.3.{part}" for part in range(1, 4)), "2.4"}
    wanted |= {*(f"3.1.{part}" for part in range(1, 5)), *(f"3.{part}" for part in range(2, 7))}
    wanted |= {*(f"App. {letter}" for letter in "ABCDEF"), *(f"ruling {number}" for number in range(1, 19))}
    assert wanted - sections == set()
