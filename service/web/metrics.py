"""The metrics of GET /metrics: one registry per app, so that two apps in one process count apart.

Every series is labelled with the instance when it is read; whatever registers here need not know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.monitoring.model_monitor import NAMESPACE, ModelMonitor
from service.schema import ModelInfo

# Upper bounds of the buckets: seconds, from one image of a small network to the longest wait in the queue
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms. Labelled children that every request needs are looked up once and cached."""

    def __init__(
        self,
        instance: str,
        queue_depth: Callable[[], int],
        body_bytes: Callable[[], int],
    ):
        """`instance`: the label of every series, as X-Instance-Id has it."""
        registry = self.registry = CollectorRegistry()
        self._labelled = _Labelled(registry, instance)
        own = {"namespace": NAMESPACE, "registry": registry}
        requests = Counter("requests", "Responses, by route and status", ("route", "status"), **own)
        errors = Counter("errors", "Requests that were refused or failed, by kind", ("kind",), **own)
        latency = Histogram("request_seconds", "From a request to its response", ("route",), buckets=SECONDS, **own)
        self._queue = Histogram("queue_seconds", "From queueing to the first pass", buckets=SECONDS, **own)
        self._passes = Histogram("pass_seconds", "Forward passes of the network", buckets=SECONDS, **own)
        self._batches = Histogram("batch_images", "Images in one forward pass", buckets=IMAGES, **own)
        self.in_flight = Gauge("requests_in_flight", "Requests in progress, this one included", **own)
        Gauge("queue_images", "Images in the queue, without the running pass", **own).set_function(queue_depth)
        Gauge("body_bytes", "Long bodies in memory, as far as they have come", **own).set_function(body_bytes)
        self._info = Gauge("model_info", "1; the model", tuple(f.name for f in fields(ModelInfo)), **own)
        self._served: ModelInfo | None = None
        switches = Counter("model_switches", "Switches to another model, by outcome", ("outcome",), **own)
        self._monitor = _Replaceable(registry)
        ProcessCollector(registry=registry)  # memory and CPU time, where there is a /proc

        self._request = cache(lambda route, status: (requests.labels(route, status), latency.labels(route)))
        self._error = cache(errors.labels)
        self.switched, self.switch_refused = switches.labels("switched"), switches.labels("refused")

    def request(self, route: str, status: str, seconds: float) -> None:
        """Count a response. `route` is a known route or OTHER_ROUTE, so that clients cannot add label values."""
        count, latency = self._request(route, status)
        count.inc()
        latency.observe(seconds)

    def error(self, kind: str) -> None:
        """Count a request that was refused or failed."""
        self._error(kind).inc()

    def serves(self, model: ModelInfo, monitor: ModelMonitor) -> None:
        """Name the model that is served from now on, and show its counts, in place of the one before."""
        before, self._served = self._served, model
        self._monitor.shown = monitor
        self._info.labels(**model.to_json()).set(1)
        if before and before != model:
            self._info.remove(*before.to_json().values())

    def queued(self, seconds: float) -> None:
        """Count the time in the queue of a request that was answered."""
        self._queue.observe(seconds)

    def ran(self, images: int, seconds: float) -> None:
        """Count a forward pass."""
        self._batches.observe(images)
        self._passes.observe(seconds)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their media type: OpenMetrics where `accept` names it, else the Prometheus text format."""
        encode, media_type = choose_encoder(accept)
        return encode(self._labelled), media_type


class _Replaceable(Collector):
    """The series of the model that is served."""

    def __init__(self, registry: CollectorRegistry):
        self.shown: ModelMonitor | None = None
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        if self.shown:
            yield from self.shown.collect()


class _Labelled(Collector):
    """A registry's series, each with one more label."""

    def __init__(self, registry: CollectorRegistry, instance: str):
        self._registry, self._instance = registry, instance

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "instance": self._instance}) for sample in metric.samples
            ]
            yield metric
