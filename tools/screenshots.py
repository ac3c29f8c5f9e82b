"""Takes the pictures under docs/images: the report, MLflow, the documents' front page and the terminal.

    mixrec-automl search configs/ml-100k.yaml --name pictures
    make pictures SEARCH=pictures

Needs Chromium (`apt install chromium`) and the `dev` dependencies.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser
from rich.ansi import AnsiDecoder
from rich.console import Console, Group

from mixrec_automl import paths
from tests.browser import browser

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
COLUMNS = 100
START_SECONDS = 60
DRAWING_SECONDS = 3
"""Of MLflow's charts"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", help="a search of $MIXREC_HOME that has ended")
    search = parser.parse_args().search
    IMAGES.mkdir(exist_ok=True)
    with browser() as chromium, tempfile.TemporaryDirectory() as scratch:
        _command("report", search, "--out", scratch)
        page = Path(scratch, "report.html").as_uri()
        _take(chromium, page, "report.png", width=1000, height=760)
        _take(chromium, page, "report-dark.png", width=1000, height=760, is_dark=True)
        _take(chromium, page, "report-phone.png", width=390, height=760)
        site = Path(scratch, "site")  # built now: its front page shows the report
        subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", site], cwd=ROOT, check=True)
        with _serving("-m", "http.server", "--bind", "127.0.0.1", "--directory", str(site)) as url:
            _take(chromium, f"{url}/index.html", "site.png", width=1280, height=800)
        _take_mlflow(chromium, search)
    (IMAGES / "show.svg").write_text(_terminal("show", search), "utf-8")


def _take(chromium: Browser, url: str, name: str, *, width: int, height: int, is_dark: bool = False) -> None:
    scheme: Literal["dark", "light"] = "dark" if is_dark else "light"
    page = chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
    page.goto(url)
    page.screenshot(path=IMAGES / name)
    page.close()


def _take_mlflow(chromium: Browser, search: str) -> None:
    """The metrics of the search's own run."""
    client = MlflowClient(paths.tracking_uri())
    experiment = client.get_experiment_by_name(search).experiment_id
    runs = client.search_runs([experiment])
    own = next(run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags)
    page = chromium.new_page(viewport={"width": 1440, "height": 800})
    with _serving("-m", "mixrec_automl.cli.app", "ui", "--port") as url:
        page.goto(f"{url}/#/experiments/{experiment}/runs")
        page.get_by_role("button", name="Close").click()  # its assistant
        page.get_by_text("Model training").click()
        page.wait_for_timeout(1000)
        page.goto(f"{url}/#/experiments/{experiment}/runs/{own}/model-metrics")
        page.get_by_text("best_mrr", exact=True).first.wait_for()
        page.wait_for_timeout(1000 * DRAWING_SECONDS)
        page.screenshot(path=IMAGES / "mlflow.png")
    page.close()


def _terminal(*arguments: str) -> str:
    """What the command prints, as SVG."""
    told = _command(*arguments, FORCE_COLOR="1", COLUMNS=str(COLUMNS))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Group(*AnsiDecoder().decode(told)))
    return console.export_svg(title=f"mixrec-automl {' '.join(arguments)}")


def _command(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "mixrec_automl.cli.app", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stdout


@contextmanager
def _serving(*arguments: str) -> Iterator[str]:
    """The URL of a server by Python with these arguments, a free port being the last of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{free}"
    process = subprocess.Popen([sys.executable, *arguments, free])
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
