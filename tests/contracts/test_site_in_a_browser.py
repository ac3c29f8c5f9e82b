"""The documents' site in a real Chromium: what axe-core says of every page, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import browser
from tests.contracts.site import build_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build_site(folder)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(site: Path, scheme: str) -> None:
    pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    assert len(pages) > 20
    found = []
    with browser() as chromium:
        page = chromium.new_context(color_scheme=scheme).new_page()  # type: ignore[arg-type]
        for path in pages:
            page.goto(path.as_uri())
            told = Axe().run(page).response
            assert len(told["passes"]) > 15, "it has looked"
            found += [
                (path.name, rule["id"], rule["nodes"][0]["html"][:120])
                for rule in told["violations"]
                if rule["impact"] in {"serious", "critical"}
            ]
    assert found == []
