"""What the service counts, in Prometheus' format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mixrec_automl.serving.messages import ModelInfo

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counters:
    """Of one replica."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("mixrec_requests", "Requests answered.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "mixrec_request_seconds", "From the request to its answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("mixrec_waiting", "Requests that wait or are being computed.", registry=registry)
        self.batches = Histogram(
            "mixrec_batch_size", "Histories read together.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self._histories = Gauge(
            "mixrec_histories",
            "Histories that the model of now found in its cache as a whole, by their beginning, or not at all.",
            ["cache"],
            registry=registry,
        )
        self._model = Gauge("mixrec_model", "1 for the model that answers.", ["name", "version"], registry=registry)

    @contextmanager
    def timed(self, path: str) -> Iterator[Callable[[int], None]]:
        """Time what happens within, which tells its HTTP status. An exception counts as 500; a client that went away as
        499, nginx's word for it.
        """
        status = 500
        began = time.perf_counter()

        def tell(code: int) -> None:
            nonlocal status
            status = code

        try:
            yield tell
        except asyncio.CancelledError:
            status = 499
            raise
        finally:
            self._seconds.labels(path).observe(time.perf_counter() - began)
            self._requests.labels(path, str(status)).inc()

    def text(self, model: ModelInfo, cache_outcomes: Mapping[str, int]) -> str:
        """In Prometheus' exposition format."""
        self._model.clear()
        self._model.labels(model.name, model.version or "").set(1)
        self._histories.clear()
        for outcome, count in cache_outcomes.items():
            self._histories.labels(outcome).set(count)
        return generate_latest(self._registry).decode()


def joined(texts: Mapping[str, str]) -> str:
    """`Counters.text` of several replicas, by name, as one, each series with its replica as a label."""
    families: dict[str, Metric] = {}
    for replica, text in texts.items():
        for one in text_string_to_metric_families(text):
            family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            for sample in one.samples:
                family.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Collected(list(families.values())))
    return generate_latest(registry).decode()


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
