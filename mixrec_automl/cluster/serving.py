"""The HTTP service as replicas on Ray Serve."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from mixrec_automl import paths
from mixrec_automl.cluster.ray_errors import last_line
from mixrec_automl.cluster.ray_session import room
from mixrec_automl.serving.counters import Counters, joined
from mixrec_automl.serving.gathering import Gatherer
from mixrec_automl.serving.http import MOST_WAITING, make_app
from mixrec_automl.serving.loading import ModelSource
from mixrec_automl.serving.messages import Answer, Asked, Refusal
from mixrec_automl.serving.service import RecommenderService
from trainers.errors import UserError

APPLICATION = "mixrec"
TOKEN = "MIXREC_SERVE_TOKEN"
"""Environment variable with the token that a request has to carry; read by each replica, written nowhere"""


METRICS_SECONDS = 5.0
"""Within this every replica tells what it has counted, or this one alone does: Prometheus asks again"""


class ServingOptions(BaseModel):
    """What a deployment is made of: the `args` of `build_app` in a Serve configuration file."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """A registered name (its champion), `name@alias`, `name/version`, or the folder of a package"""
    replicas: int = Field(1, ge=1)
    cpus: float = Field(1, gt=0)
    """Of each replica, which computes with so many threads"""
    gpus: float = Field(0, ge=0)
    needs_token: bool = False
    """Whether a replica whose environment has no token refuses to start"""
    cache_mb: int = Field(256, ge=0)
    """Mebibytes of each replica for keys and values of histories; 0: every history is read anew"""


def token() -> str | None:
    """The token of this process's environment. Raises UserError where it is set to what no request could carry."""
    given = os.environ.get(TOKEN)
    if given is None:
        return None
    given = given.strip()  # a secret from a file often ends with a line feed
    if not given or not given.isascii() or not given.isprintable():
        raise UserError(
            f"{TOKEN} is set, but to nothing that a header could carry: set it to printable ASCII characters"
        )
    return given


class Replica:
    """One process with one copy of the model."""

    def __init__(self, model: str, cache_bytes: int, needs_token: bool) -> None:
        self._token = token()
        if needs_token and self._token is None:
            raise UserError(f"{TOKEN} is not set in the environment of this node")
        self._service = RecommenderService(ModelSource(model, paths.tracking_uri(), cache_bytes))
        self._counters = Counters()
        self._name = secrets.token_hex(4)

    def __serve_build_asgi_app__(self) -> Any:
        return make_app(
            Gatherer(self._answer).ask,
            self._service,
            self._counters,
            self._metrics_of_all,
            token=self._token,
        )

    async def _metrics_of_all(self) -> str:
        # Whoever asks reaches one replica or another, and would see its counters go up and down.
        mine = serve.get_replica_context()
        replicas = serve.get_deployment_handle(mine.deployment, mine.app_name)
        asked = replicas.broadcast(self.metrics.__name__)
        try:
            told = await asked.results_async(timeout_s=METRICS_SECONDS, return_exceptions=True)
        except TimeoutError:
            told = [self.metrics()]
        return joined(dict(one for one in told if not isinstance(one, BaseException)))  # without one that has died

    def metrics(self) -> tuple[str, str]:
        """This replica's name and what it has counted."""
        return self._name, self._counters.text(self._service.model, self._service.cache_outcomes)

    def _answer(self, asked: Sequence[Asked]) -> Sequence[Answer | Refusal]:
        self._counters.batches.observe(len(asked))
        return self._service.answer(asked)

    def __del__(self) -> None:
        if hasattr(self, "_service"):
            self._service.close()


def build_app(args: Mapping[str, Any]) -> Any:
    """The Serve application: `mixrec_automl.cluster.serving:build_app` in a Serve configuration file.

    Args:
        args: the fields of `ServingOptions`. (Serve would make a model of them only where annotations are no text.)

    Raises:
        pydantic.ValidationError: a field that is missing, unknown or out of bounds.
    """
    options = ServingOptions.model_validate(args)
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=APPLICATION,
        num_replicas=options.replicas,
        # The service itself refuses with 429 what is too much; Serve's own queue comes after that.
        max_ongoing_requests=2 * MOST_WAITING,
        ray_actor_options={
            "num_cpus": options.cpus,
            "num_gpus": options.gpus,
            # Ray leaves the GPUs of a node visible to processes that have asked for none.
            "runtime_env": {} if options.gpus else {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}},
        },
        graceful_shutdown_timeout_s=60,
        health_check_period_s=5,
    )
    return deployment.bind(options.model, options.cache_mb * 2**20, options.needs_token)


@contextmanager
def serving(options: ServingOptions, host: str, port: int) -> Iterator[None]:
    """Serve on the connected Ray within the context; requests under way at its end are answered.

    Raises:
        UserError: something is served there already, the replicas do not fit, or neither they nor the proxy came up.
    """
    if APPLICATION in serve.status().applications:
        raise UserError(
            "this Ray cluster serves a model already: end that with Ctrl-C where it was started or, if that has died, "
            "with `serve shutdown` on the cluster"
        )
    fit = room(options.cpus, options.gpus)
    if fit < options.replicas:
        raise UserError(
            f"{options.replicas} replicas with {options.cpus:g} CPU and {options.gpus:g} GPU each do not fit: there "
            f"is room for {fit}. Lower --replicas, --cpus or --gpus, or connect more machines"
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=host, port=port))
    except (RayServeException, RayError, RuntimeError) as error:
        _shut_down_unused()
        raise UserError(f"the proxy did not come up: {_trouble_of_proxy(error)}") from error
    http = _get_global_client().http_config
    if (http.host, http.port) != (host, port):
        raise UserError(f"Ray Serve of this cluster listens already: give --host {http.host} --port {http.port}")
    try:
        try:
            serve.run(build_app(options.model_dump()), name=APPLICATION, route_prefix="/")
        except (RayServeException, RayError, RuntimeError) as error:
            raise UserError(f"no replica came up: {last_line(error)}") from error
        yield
    finally:
        serve.delete(APPLICATION)
        _shut_down_unused()


def _shut_down_unused() -> None:
    # An embedded Ray ends with its user anyway; a cluster may serve for others as well.
    if os.environ.get("RAY_ADDRESS") and not serve.status().applications:
        serve.shutdown()


def _trouble_of_proxy(error: Exception) -> str:
    """In a line. HAProxy says first what it could not do, and last that it ends."""
    told = re.search(r"cannot bind socket.*", str(error))
    if told is None:
        return last_line(error)
    return (
        f"HAProxy {told[0]}. Every service of a machine needs ports of its own: --port, "
        f"RAY_SERVE_HAPROXY_METRICS_PORT and RAY_SERVE_HAPROXY_STATS_PORT"
    )
