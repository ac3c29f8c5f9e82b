"""The HTTP interface: routes, limits, who may ask, and what is counted. It knows neither Ray nor the registry."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

import mixrec_automl
from mixrec_automl.serving.counters import Counters
from mixrec_automl.serving.messages import (
    LARGEST_BODY,
    Answer,
    AnswerTogether,
    Asked,
    AskedTogether,
    Health,
    ModelInfo,
    Refusal,
)

MOST_WAITING = 256
"""Requests that wait or are being computed; those beyond are refused with 429"""
LONGEST_NAME = 40
"""Characters of a key that are repeated where it is refused"""
OPEN_PATHS = frozenset({"/healthz", "/docs", "/openapi.json"})
"""Need no token: they tell a model's name, version and number of items, and in general words why not a newer one's"""
FILES_OF_DOCS = "/docs-files"
"""Scripts and styles of `/docs`, which need none either"""

Ask = Callable[[Asked], Awaitable[Answer | Refusal]]


class Served(Protocol):
    """What answers now."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def trouble(self) -> str | None:
        """Why a newer model is not served, or None."""


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = JSONResponse(Refusal(detail=detail).model_dump(), status, headers)


def make_app(
    ask: Ask,
    served: Served,
    counters: Counters,
    metrics: Callable[[], Awaitable[str]],
    *,
    token: str | None,
    most_waiting: int = MOST_WAITING,
) -> FastAPI:
    """The ASGI application.

    Args:
        ask: gives one answer; may be called many times at once.
        served: which model answers now.
        counters: told of each request.
        metrics: what all replicas have counted, in Prometheus' exposition format.
        token: what `Authorization: Bearer` has to carry; None: anybody may ask.
    """
    app = FastAPIOffline(  # with the files of /docs, which FastAPI alone takes from servers of others
        static_url=FILES_OF_DOCS,
        title="mixrec-automl",
        version=mixrec_automl.__version__,
        description="Recommends items after a user's history.",
        redoc_url=None,
        max_body_size=LARGEST_BODY,
    )
    # For the schema and its page, which so has a field for the token; it is checked below, before anything is read.
    told = [Depends(HTTPBearer(auto_error=False))] if token else []
    refusals: dict[int | str, dict[str, Any]] = {
        code: {"model": Refusal, "description": text}
        for code, text in {
            400: "The body is no text.",
            401: "The token is missing or wrong.",
            422: "The request is malformed, or this model cannot read its history.",
            429: "Too many requests wait; try again later.",
        }.items()
    }
    refusals[413] = {"description": f"The body is larger than {LARGEST_BODY} bytes."}
    waiting = 0

    async def answer_all(requests: list[Asked]) -> list[Answer]:
        nonlocal waiting
        if waiting + len(requests) > most_waiting:
            raise _RefusedError(
                429, f"{waiting} requests wait already, of at most {most_waiting}", {"Retry-After": "1"}
            )
        waiting += len(requests)
        counters.waiting.set(waiting)
        try:
            found = await asyncio.gather(*(ask(request) for request in requests))
        finally:
            waiting -= len(requests)
            counters.waiting.set(waiting)
        answers = []
        for place, one in enumerate(found):
            if isinstance(one, Refusal):
                where = f"requests.{place}: " if len(requests) > 1 else ""
                raise _RefusedError(422, where + one.detail)
            answers.append(one)
        return answers

    @app.post("/recommend", responses=refusals, dependencies=told)
    async def recommend(asked: Asked) -> Answer:
        """The best items after one history."""
        return (await answer_all([asked]))[0]

    @app.post("/recommend/batch", responses=refusals, dependencies=told)
    async def recommend_batch(asked: AskedTogether) -> AnswerTogether:
        """The best items after each of several histories; one that cannot be answered refuses them all."""
        return AnswerTogether(answers=await answer_all(asked.requests))

    @app.get("/healthz")
    async def healthz() -> Health:
        """The service is up; which model answers, and whether a newer one could not be loaded."""
        return Health(model=served.model, trouble=served.trouble)

    text = {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    # `Response`, as the class of an answer sets the type of its refusals too.
    @app.get("/metrics", responses={200: text, 401: refusals[401]}, response_class=Response, dependencies=told)
    async def all_metrics() -> PlainTextResponse:
        """For Prometheus: of all replicas, each with its label."""
        return PlainTextResponse(await metrics(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(_RefusedError)
    async def refused(_request: Request, error: _RefusedError) -> JSONResponse:
        return error.response

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        # No value that was sent: it may be large, no text that JSON can carry, or a user's own. A key's name is cut.
        first = error.errors()[0]
        place = ".".join(str(part)[:LONGEST_NAME] for part in first["loc"] if part != "body")
        return JSONResponse(Refusal(detail=f"{place}: {first['msg']}" if place else first["msg"]).model_dump(), 422)

    @app.middleware("http")
    async def check_token_and_count(request: Request, go_on: Callable[[Request], Awaitable[Any]]) -> Any:
        path = request.scope["path"]  # what the router goes by; the URL is made up of what the client sent as well
        is_open = path in OPEN_PATHS or path.startswith(f"{FILES_OF_DOCS}/")
        with counters.timed(path if path in known else "other") as outcome:
            if token is not None and not is_open and not _is_authorised(request, token):
                refusal = Refusal(detail="give the service's token as `Authorization: Bearer TOKEN`")
                response: Any = JSONResponse(refusal.model_dump(), 401, {"WWW-Authenticate": "Bearer"})
            else:
                response = await go_on(request)
            outcome(response.status_code)
        return response

    known = {getattr(route, "path", "") for route in app.routes}
    return app


def _is_authorised(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
