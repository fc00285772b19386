"""What /metrics tells: one registry for each app, so that two apps in one process do not count into each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from service.schema import ModelInfo

# Upper bounds of the buckets: times in seconds, from a small network's share of a pass to the longest wait
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts and times. What is asked for with every request is looked up once and then kept."""

    def __init__(self, model: ModelInfo, classes: Sequence[str], queue_depth: Callable[[], int]):
        registry = self._registry = CollectorRegistry()
        own = {"namespace": "classifier", "registry": registry}
        requests = Counter("requests", "Answers, by route and status", ("route", "status"), **own)
        errors = Counter("errors", "Requests that were not answered with what they asked for", ("kind",), **own)
        latency = Histogram("request_seconds", "From a request to its answer", ("route",), buckets=SECONDS, **own)
        predictions = Counter("predictions", "Pictures, by the class they were taken for", ("label",), **own)
        self._queue = Histogram("queue_seconds", "From queueing to the first pass", buckets=SECONDS, **own)
        self._passes = Histogram("pass_seconds", "Forward passes of the network", buckets=SECONDS, **own)
        self._batches = Histogram("batch_pictures", "Pictures in one forward pass", buckets=PICTURES, **own)
        self.in_flight = Gauge("requests_in_flight", "Requests that are being answered, this one included", **own)
        Gauge("queue_pictures", "Pictures that wait for the network", **own).set_function(queue_depth)
        Gauge("model_info", "1; which network answers", tuple(model.to_json()), **own).labels(**model.to_json()).set(1)
        ProcessCollector(registry=registry)  # memory and processor time, where there is a /proc

        self._request = cache(lambda route, status: (requests.labels(route, status), latency.labels(route)))
        self._error = cache(errors.labels)
        self._predictions = [predictions.labels(label) for label in classes]

    def request(self, route: str, status: str, seconds: float) -> None:
        """An answer. `route` is one of the contract's, whatever was asked for: a label must not grow with its input."""
        count, latency = self._request(route, status)
        count.inc()
        latency.observe(seconds)

    def error(self, kind: str) -> None:
        """A request that was refused, or failed."""
        self._error(kind).inc()

    def predicted(self, class_ids: Sequence[int], queue_seconds: float) -> None:
        """A request that was answered with these classes."""
        self._queue.observe(queue_seconds)
        for class_id in class_ids:
            self._predictions[class_id].inc()

    def ran(self, pictures: int, seconds: float) -> None:
        """A forward pass."""
        self._batches.observe(pictures)
        self._passes.observe(seconds)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All of it, and its media type: OpenMetrics where `accept` asks for that, else Prometheus's own format."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
