"""The HTTP interface around a recommender that is written down here: limits, refusals, tokens, what is counted."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mixrec_automl.serving import messages
from mixrec_automl.serving.counters import Counters, joined
from mixrec_automl.serving.http import make_app
from mixrec_automl.serving.messages import Answer, Asked, Item, ModelInfo, Refusal

MODEL = ModelInfo(name="shop", version="3", items=5)
CACHE_OUTCOMES = {"known": 2, "new": 5}


class Standing:
    """What is told of the model."""

    model, trouble = MODEL, None


async def echo(asked: Asked) -> Answer | Refusal:
    """Recommends the history backwards."""
    history = asked.history or asked.texts or []
    if "unheard of" in history:
        return Refusal(detail="no item of the history is known")
    items = [Item(rank=at, item=item, title=item, score=-at) for at, item in enumerate(history[::-1][: asked.k], 1)]
    return Answer(model=MODEL, recommendations=items, unknown=[])


def app_of(ask: Callable[[Asked], Awaitable[Answer | Refusal]] = echo, **options: Any) -> FastAPI:
    counters = Counters()

    async def metrics() -> str:
        return counters.text(MODEL, CACHE_OUTCOMES)

    return make_app(ask, Standing(), counters, metrics, **{"token": None, **options})


@pytest.fixture
def client() -> TestClient:
    return TestClient(app_of(), raise_server_exceptions=False)


def test_a_history_is_answered(client: TestClient) -> None:
    response = client.post("/recommend", json={"history": ["a", "b", "c"], "k": 2})
    assert response.status_code == 200
    assert response.json() == {
        "model": {"name": "shop", "version": "3", "items": 5},
        "recommendations": [
            {"rank": 1, "item": "c", "title": "c", "score": -1},
            {"rank": 2, "item": "b", "title": "b", "score": -2},
        ],
        "unknown": [],
    }
    texts = client.post("/recommend", json={"texts": ["  a lamp "]}).json()
    assert [one["item"] for one in texts["recommendations"]] == ["a lamp"]


def test_a_batch_is_answered_in_its_order_and_refused_as_a_whole(client: TestClient) -> None:
    asked = [{"history": [name, "x"], "k": 1 + at} for at, name in enumerate("abc")]
    answers = client.post("/recommend/batch", json={"requests": asked}).json()["answers"]
    assert [[one["item"] for one in answer["recommendations"]] for answer in answers] == [["x"], ["x", "b"], ["x", "c"]]
    refused = client.post("/recommend/batch", json={"requests": [*asked, {"history": ["unheard of"]}]})
    assert refused.status_code == 422
    assert refused.json() == {"detail": "requests.3: no item of the history is known"}
    assert client.post("/recommend", json={"history": ["unheard of"]}).json() == {
        "detail": "no item of the history is known"
    }


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "give either `history` or `texts`"),
        ({"history": ["a"], "texts": ["b"]}, "give either `history` or `texts`"),
        ({"history": []}, "history: List should have at least 1 item"),
        ({"history": ["a"] * (messages.LONGEST_HISTORY + 1)}, "history: List should have at most 1000 items"),
        ({"history": [""]}, "history.0: String should have at least 1 character"),
        ({"history": ["a" * 257]}, "history.0: String should have at most 256 characters"),
        ({"history": [3]}, "history.0: Input should be a valid string"),
        ({"texts": [" \n "]}, "texts.0: Value should have at least 1 item"),
        ({"history": ["a"], "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"history": ["a"], "k": 10**30}, "k: Input should be less than or equal to 1000"),
        ({"history": ["a"], "limit": 3}, "limit: Extra inputs are not permitted"),
        ({"history": ["a"], "x" * 999: 3}, "x" * 40 + ": Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(client: TestClient, body: dict[str, Any], told: str) -> None:
    response = client.post("/recommend", json=body)
    assert response.status_code == 422
    assert told in response.json()["detail"]
    assert list(response.json()) == ["detail"]
    assert "\n" not in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"history": ["\\ud800"]}',
        b'{"history": ["a"], "k": 1e400}',
        b'{"history": ["a"], "k": NaN}',
        b"[" * 100_000,
        b"null",
    ],
)
def test_what_is_no_json_of_ours_is_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert isinstance(response.json()["detail"], str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["history", "texts", "k", "exclude_seen", "allow", "deny", "requests", "other"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON | st.dictionaries(FIELDS, JSON | st.lists(st.text(max_size=5), max_size=3), max_size=4))
def test_no_body_whatever_is_an_error_of_ours(client: TestClient, body: Any) -> None:
    for path in ("/recommend", "/recommend/batch"):
        response = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert response.status_code in (200, 400, 422), response.text
        response.json()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(client: TestClient, chunked: bool) -> None:
    size = messages.LARGEST_BODY + 1
    content = (b" " * 2**20 for _ in range(20)) if chunked else b" " * size
    assert client.post("/recommend", content=content).status_code == 413
    fits = b'{"history": ["a"]}'
    headers = {"Content-Type": "application/json"}
    assert client.post("/recommend", content=fits.ljust(size - 1), headers=headers).status_code == 200


def test_the_token_is_asked_for_everywhere_but_where_nothing_is_told() -> None:
    client = TestClient(app_of(token="s3cret"))
    body = {"history": ["a"]}
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, {"Authorization": "ü"}):
        response = client.post("/recommend", json=body, headers={k: v.encode() for k, v in header.items()})
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert "s3cret" not in response.text
    assert client.post("/recommend", json=body, headers={"Authorization": "bearer s3cret"}).status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.post("/recommend/batch", json={"requests": [body]}).status_code == 401
    for path in ("/healthz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    for path, host in (
        ("/recommend", "x/healthz?"),
        ("/recommend", "x/docs-files/"),
        ("/docs-files/..%2Frecommend", "x"),
    ):
        assert client.post(path, json=body, headers={"Host": host}).status_code in {401, 404, 405}, "no way around it"


def test_the_page_of_the_interface_asks_for_nothing_from_elsewhere_and_for_no_token() -> None:
    client = TestClient(app_of(token="s3cret"))
    page = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {Path(name).suffix for name in files} >= {".js", ".css"}
    for name in files:
        assert name.startswith("/docs-files/")
        assert client.get(name).status_code == 200


def test_more_than_may_wait_is_refused_at_once() -> None:
    """Two are held; the third is refused while they wait, and answered afterwards."""
    held, inside = threading.Event(), threading.Semaphore(0)

    async def hold(asked: Asked) -> Answer | Refusal:
        inside.release()
        while not held.is_set():
            await asyncio.sleep(0.01)
        return await echo(asked)

    body = {"history": ["a"]}
    with TestClient(app_of(hold, most_waiting=2)) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/recommend", json=body) for _ in range(2)]
        for _ in waiting:
            assert inside.acquire(timeout=20)
        refused = client.post("/recommend", json=body)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json() == {"detail": "2 requests wait already, of at most 2"}
        assert client.get("/healthz").status_code == 200
        assert "mixrec_waiting 2.0" in client.get("/metrics").text
        held.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert client.post("/recommend", json=body).status_code == 200
        assert "mixrec_waiting 0.0" in client.get("/metrics").text


def test_what_happens_is_counted(client: TestClient) -> None:
    client.post("/recommend", json={"history": ["a"]})
    client.post("/recommend", json={})
    client.get("/wp-login.php")
    text = client.get("/metrics").text
    assert 'mixrec_requests_total{path="/recommend",status="200"} 1.0' in text
    assert 'mixrec_requests_total{path="/recommend",status="422"} 1.0' in text
    assert 'mixrec_requests_total{path="other",status="404"} 1.0' in text, "one series for all that is not ours"
    assert 'mixrec_request_seconds_count{path="/recommend"} 2.0' in text
    assert 'mixrec_model{name="shop",version="3"} 1.0' in text
    assert 'mixrec_histories{cache="new"} 5.0' in text


def test_replicas_are_told_apart_and_each_family_stands_once() -> None:
    replicas = {"a": Counters(), 'b"': Counters()}
    for times, counters in enumerate(replicas.values(), 1):
        for _ in range(times):
            with counters.timed("/recommend") as tell:
                tell(200)
    text = joined({name: counters.text(MODEL, CACHE_OUTCOMES) for name, counters in replicas.items()})
    assert 'mixrec_requests_total{path="/recommend",replica="a",status="200"} 1.0' in text
    assert 'mixrec_requests_total{path="/recommend",replica="b\\"",status="200"} 2.0' in text
    assert text.count("# TYPE mixrec_requests_total counter") == 1
    assert text.count("# TYPE mixrec_request_seconds histogram") == 1
    alone = replicas["a"].text(MODEL, CACHE_OUTCOMES)
    assert len(joined({"a": alone}).splitlines()) == len(alone.splitlines()), "nothing is lost"


def test_an_error_of_ours_is_500_without_its_text() -> None:
    async def broken(_asked: Asked) -> Answer | Refusal:
        raise LookupError("what nobody should read")

    client = TestClient(app_of(broken), raise_server_exceptions=False)
    response = client.post("/recommend", json={"history": ["a"]})
    assert response.status_code == 500
    assert "nobody" not in response.text
    assert 'mixrec_requests_total{path="/recommend",status="500"} 1.0' in client.get("/metrics").text
    assert "mixrec_waiting 0.0" in client.get("/metrics").text


def test_the_schema_tells_all_routes_and_limits(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/recommend", "/recommend/batch", "/healthz", "/metrics"}
    assert {"200", "401", "413", "422", "429"} <= set(schema["paths"]["/recommend"]["post"]["responses"])
    assert schema["components"]["schemas"]["Asked"]["properties"]["k"]["maximum"] == messages.MOST_RECOMMENDED
