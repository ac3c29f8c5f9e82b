"""How long the HTTP service takes to answer: new histories, histories that grew by an item, known ones, and batches.

    mixrec-automl data prepare ml-100k
    python benchmarks/serving.py --data ml-100k

An untrained model (2 layers of the default backbone, history 50) is packed and served by `mixrec-automl serve` on this
machine with one replica of one thread. One client with one connection asks, one request after another:

*   `new`: all but the newest item of a user's last 50, never asked about before;
*   `grown`: the same with the newest item as well, so that one item is new;
*   `known`: the same again;
*   batches of 8 and 32 of each, as one request.

All of it twice: through Ray Serve's own proxy ("HTTP") and through HAProxy (docs/serving.md). Each line has the median
and the 99th percentile of the milliseconds that a request takes, from end to end, and the ratio of the medians to that
of `new`. The last lines have the same of the model alone, in this process. Users are drawn once among those with 50
items or more. It takes about 4 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from mixrec_automl import paths
from search_spaces.architecture import Architecture
from trainers.config import BackboneConfig, DataConfig, FinetuneConfig
from trainers.package import read_package, write_package
from trainers.task import build_model, load_task

SEED, LAYERS, HISTORY, K, SINGLE = 0, 2, 50, 10, 100
BATCHES = {8: 12, 32: 6}
"""Requests of each size of a batch"""
CACHE_MB = 2048
"""Room for all that is asked about"""
START_SECONDS = 180
PROXIES: dict[str, dict[str, str]] = {"HTTP": {}, "HAProxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}
"""What stands between client and replica, and how Ray is told"""

Histories = list[list[str]]


def make_package(data: str, folder: Path) -> list[list[str]]:
    """Pack an untrained model into `folder`; the newest items of each user who has enough, in a drawn order."""
    config = FinetuneConfig(data=DataConfig(name=data, history=HISTORY), backbone=BackboneConfig(layers=LAYERS))
    task = load_task(config, paths.data_folder(data), paths.backbones_folder())
    design = Architecture.from_bits((0,) * 3 * LAYERS)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, "weights.safetensors")
        save_file(build_model(config, design, task, seed=SEED).state_dict(), weights)
        write_package(folder, config, design, task, weights, paths.backbones_folder())
    users = np.flatnonzero(np.diff(task.data.offsets) >= HISTORY)
    ids = task.data.catalogue.ids
    drawn = np.random.default_rng(SEED).permutation(users)
    return [[ids[item] for item in task.data.sequence(int(user))[-HISTORY:]] for user in drawn]


@contextmanager
def served(package: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """The URL of the service.

    Args:
        settings: of Ray, for its environment.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mixrec_automl.cli.app", "serve", str(package)]
    command += ["--port", str(port), "--cache-mb", str(CACHE_MB)]
    process = subprocess.Popen(command, env=os.environ | settings, start_new_session=True)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def asking(url: str) -> Callable[[Histories], object]:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=120)

    def ask(histories: Histories) -> object:
        asked = [{"history": history, "k": K} for history in histories]
        path, body = ("/recommend", asked[0]) if len(asked) == 1 else ("/recommend/batch", {"requests": asked})
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            assert response.status == 200, response.read()
            return json.load(response)

    return ask


def measured(ask: Callable[[Histories], object], users: Sequence[list[str]]) -> Iterator[tuple[str, int, list[float]]]:
    """(kind, histories a request, milliseconds of each request); each user is asked about once a kind."""
    at = 0
    for size, requests in ((1, SINGLE), *BATCHES.items()):
        groups = [users[at + size * number : at + size * (number + 1)] for number in range(requests)]
        at += size * requests
        assert len(groups[-1]) == size, "too few users with a long history"
        for kind, last in (("new", -1), ("grown", None), ("known", None)):
            taken = []
            for group in groups:
                histories = [history[:last] for history in group]
                began = time.perf_counter()
                ask(histories)
                taken.append(1000 * (time.perf_counter() - began))
            yield kind, size, taken


def rows_of(name: str, ask: Callable[[Histories], object], users: Sequence[list[str]], table: Table) -> None:
    cold = 0.0
    for kind, size, taken in measured(ask, users):
        median, late = (float(number) for number in np.percentile(taken, [50, 99]))
        cold = median if kind == "new" else cold
        table.add_row(name, str(size), kind, str(len(taken)), f"{median:.1f}", f"{late:.1f}", f"{cold / median:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-100k")
    data = parser.parse_args().data
    os.environ.pop("RAY_ADDRESS", None)
    torch.set_num_threads(1)
    console = Console(width=110)
    table = Table(title=f"{data}: {LAYERS} layers, history {HISTORY}, one thread")
    for heading in ("", "histories", "kind", "requests", "p50 [ms]", "p99 [ms]", "faster than new"):
        table.add_column(heading, justify="right", no_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "package")
        users = make_package(data, folder)
        package = read_package(folder, cache_bytes=CACHE_MB * 2**20)
        index = package.catalogue.index

        def score(histories: Histories) -> object:
            return package.score([np.array([index[item] for item in history], dtype=np.int32) for history in histories])

        for name, settings in PROXIES.items():
            with served(folder, settings) as url:
                ask = asking(url)
                ask([users[-1][:2]])  # whatever is made at the first request
                rows_of(name, ask, users, table)
        score([users[-1][:2]])
        rows_of("model", score, users, table)
    console.print(table)


if __name__ == "__main__":
    main()
