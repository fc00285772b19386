"""Stops sending to a target that does not respond, or whose first response shows that it never will as expected. Pure.

Each further request would only wait for its timeout, or be refused alike.
"""

from __future__ import annotations

from eval.load.client import Failure
from eval.load.refusals import is_refusal
from eval.samples.model import Sample

TRANSPORT_ERRORS = ("dns", "connect", "tls", "timeout", "disconnected")
NO_CONNECTION = ("dns", "connect", "tls")  # of them: no overload of the target ends so, as it may in timeouts
MAX_CONSECUTIVE_FAILURES = 20  # then its /readyz is probed
MAX_FAILING_S = 60.0  # the same after so long; with timeouts it comes first
MAX_READY_PROBES = 2  # successful probes without a response to a request in between


class CircuitBreaker:
    """Trips when a target stops responding and is not ready, and at a first response that no waiting cures."""

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self.probes = 0  # since its last response
        self.trip_reason: Failure | None = None  # error of its unsent requests, once tripped
        self.refusal: Sample | None = None  # the first response, if that tripped it
        self._responded = False
        self._last_failure: Failure = ("connect", "")
        self._failing_since_s = 0.0  # scheduled time of the first of the consecutive failures
        self._failing_for_s = 0.0  # from there to the end of the last one

    def record(self, sample: Sample) -> None:
        """Count the result of a request."""
        if self.trip_reason:
            return
        if sample.error not in TRANSPORT_ERRORS:
            self.consecutive_failures = self.probes = 0
            if not self._responded and sample.image_index >= 0 and sample.error and is_refusal(sample):
                self.refusal, self.trip_reason = sample, (sample.error, sample.detail or "")
            self._responded |= sample.image_index >= 0
            return
        if self.consecutive_failures == 0:
            self._failing_since_s = sample.scheduled_s
        self.consecutive_failures += 1
        self._last_failure = (sample.error, sample.detail or "")
        self._failing_for_s = sample.scheduled_s + sample.latency_ms / 1000 - self._failing_since_s

    @property
    def should_probe(self) -> bool:
        """Whether it is time to probe /readyz."""
        if self.trip_reason or not self.consecutive_failures:
            return False
        probe_number = self.probes + 1
        return (
            self.consecutive_failures >= probe_number * MAX_CONSECUTIVE_FAILURES
            or self._failing_for_s >= probe_number * MAX_FAILING_S
        )

    @property
    def should_probe_at_once(self) -> bool:
        """Whether it is time to probe even in the middle of an open loop."""
        return self.should_probe and self._last_failure[0] in NO_CONNECTION

    def record_probe(self, ready: bool) -> None:
        """Count a probe. Trips if the target is not ready, or was ready too often without responding."""
        self.probes += 1
        if not ready or self.probes > MAX_READY_PROBES:
            self.trip_reason = self._last_failure
