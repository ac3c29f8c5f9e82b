"""A real Chromium for tests of pages: that of the system, or Playwright's own where somebody has installed it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser() -> Iterator[Browser]:
    """Skips the test where there is none: pip cannot install one, so it is no part of the installation."""
    with sync_playwright() as playwright:
        of_system = next(filter(None, map(shutil.which, NAMES)), None)
        executable = of_system or playwright.chromium.executable_path
        if not Path(executable).exists():
            pytest.skip("no Chromium: `apt install chromium` or `playwright install chromium`")
        # A sandbox is not to be had as root in a container; the pages are our own.
        found = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield found
        finally:
            found.close()
