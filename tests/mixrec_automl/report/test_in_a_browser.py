"""The report in a real Chromium: for eyes, for the keyboard, for screen readers, and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from mixrec_automl.report.material import Material
from mixrec_automl.report.page import write_report
from mixrec_automl.store.repository import Repository
from tests.browser import browser
from tests.mixrec_automl.report.test_report import NAME, record

DESK, PHONE = 1280, 360
"""Widths in CSS pixels"""
LOOKS = [(width, scheme) for width in (DESK, PHONE) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with closing(Repository.open(f"sqlite:///{folder / 'mixrec.db'}")) as repository:
        record(repository)
        return write_report(Material.read(repository, NAME), folder / "out")[0]


@pytest.fixture
def page(chromium: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Opened, with all that Chromium complains about and asks for; a test may ask for a width and a scheme."""
    width, scheme = getattr(request, "param", (DESK, "light"))
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: trouble.append(asked.url) if asked.url != report.as_uri() else None)
    page.goto(report.as_uri())
    yield page
    context.close()
    assert trouble == [], "what it prints to the console, or asks of a network"


@pytest.mark.parametrize("page", LOOKS, indirect=True, ids=str)
def test_axe_finds_nothing(page: Page) -> None:
    """Contrast, names, roles and order, by axe-core's rules."""
    found = Axe().run(page).response
    assert len(found["passes"]) > 15, "it has looked"
    assert [
        (rule["id"], rule["impact"], [node["html"][:200] for node in rule["nodes"]]) for rule in found["violations"]
    ] == []


def test_axe_would_find_pale_text(page: Page) -> None:
    page.add_style_tag(content="p { color: #ccc !important }")
    assert "color-contrast" in {rule["id"] for rule in Axe().run(page).response["violations"]}


@pytest.mark.parametrize("page", [(PHONE, "light")], indirect=True, ids=str)
def test_a_phone_need_not_scroll_sideways(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(page: Page) -> None:
    reachable = page.locator("a, [tabindex='0']")
    assert reachable.count() > 5
    for place in range(reachable.count()):
        page.keyboard.press("Tab")
        assert reachable.nth(place).evaluate("found => found === document.activeElement"), place
        outline = reachable.nth(place).evaluate("found => getComputedStyle(found).outlineStyle")
        assert outline != "none", place
    page.locator("nav a").last.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#trials"
    top = page.locator("#trials").bounding_box()
    assert top is not None
    assert 0 <= top["y"] < 900, "on the screen"
