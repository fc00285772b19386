"""When a target that answers nothing is given up: the rest of its requests would only wait in vain. Pure."""

from __future__ import annotations

from eval.load.client import Failure
from eval.samples.model import Sample

TRANSPORT_ERRORS = ("dns", "connect", "tls", "timeout", "disconnected")
MAX_CONSECUTIVE_FAILURES = 20  # then it is asked whether it is ready
MAX_FAILING_S = 60.0  # the same after so long, which with timeouts comes first
MAX_READY_PROBES = 2  # it may say that it is ready, and still answer nothing, this often


class CircuitBreaker:
    """How long a target that does not answer is still asked."""

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self.probes = 0  # since it last answered
        self.trip_reason: Failure | None = None  # how its unsent requests count, once it is given up
        self._last_failure: Failure = ("connect", "")
        self._failing_since_s = 0.0  # when the first of the failures in a row was due
        self._failing_for_s = 0.0  # from there to the last one's end

    def record(self, sample: Sample) -> None:
        """Take in what came of a request."""
        if self.trip_reason:
            return
        if sample.error not in TRANSPORT_ERRORS:
            self.consecutive_failures = self.probes = 0
            return
        if self.consecutive_failures == 0:
            self._failing_since_s = sample.started_s
        self.consecutive_failures += 1
        self._last_failure = (sample.error, sample.detail or "")
        self._failing_for_s = sample.started_s + sample.latency_ms / 1000 - self._failing_since_s

    @property
    def should_probe(self) -> bool:
        """Whether it is time to ask the target if it is ready at all."""
        if self.trip_reason or not self.consecutive_failures:
            return False
        probe_number = self.probes + 1
        return (
            self.consecutive_failures >= probe_number * MAX_CONSECUTIVE_FAILURES
            or self._failing_for_s >= probe_number * MAX_FAILING_S
        )

    def record_probe(self, ready: bool) -> None:
        """Take in whether the target says it is ready. Not ready, or ready too often in vain, and it is given up."""
        self.probes += 1
        if not ready or self.probes > MAX_READY_PROBES:
            self.trip_reason = self._last_failure
