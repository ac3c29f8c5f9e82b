"""The page of the HTTP interface in a real Chromium, which may ask nobody but the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from tests.browser import browser
from tests.mixrec_automl.serving.test_http import app_of
from tests.ports import free_port


@contextmanager
def serving() -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app_of(), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


def test_the_page_shows_the_routes_without_a_network() -> None:
    asked: list[str] = []
    with serving() as url, browser() as chromium:
        page = chromium.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/docs")
        page.get_by_text("/recommend/batch").wait_for()
        assert page.locator(".opblock").count() == 4
    assert [one for one in asked if not one.startswith((url, "data:"))] == []
