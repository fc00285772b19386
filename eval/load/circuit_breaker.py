"""When a target that answers nothing is given up: the rest of its requests would only wait in vain. Pure."""

from __future__ import annotations

from eval.load.client import Failure
from eval.samples.model import Sample

UNREACHABLE = ("dns", "connect", "tls", "timeout", "disconnected")
FAILURES_IN_A_ROW = 20  # then it is asked whether it is ready
FAILING_S = 60.0  # the same after so long, which with timeouts comes first
UNHEEDED_CHECKS = 2  # it may say that it is ready, and still answer nothing, this often


class Patience:
    """How long a target that does not answer is still asked."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.checks = 0  # since it last answered
        self.lost: Failure | None = None  # how its unsent requests count, once it is given up
        self._last: Failure = ("connect", "")
        self._since_s = 0.0  # when the first of the failures in a row was due
        self._failing_s = 0.0  # from there to the last one's end

    def note(self, sample: Sample) -> None:
        """Take in what came of a request."""
        if self.lost:
            return
        if sample.error not in UNREACHABLE:
            self.in_a_row = self.checks = 0
            return
        if self.in_a_row == 0:
            self._since_s = sample.started_s
        self.in_a_row += 1
        self._last = (sample.error, sample.detail or "")
        self._failing_s = sample.started_s + sample.latency_ms / 1000 - self._since_s

    @property
    def wants_check(self) -> bool:
        """Whether it is time to ask the target if it is ready at all."""
        if self.lost or not self.in_a_row:
            return False
        nth = self.checks + 1
        return self.in_a_row >= nth * FAILURES_IN_A_ROW or self._failing_s >= nth * FAILING_S

    def checked(self, ready: bool) -> None:
        """Take in whether the target says it is ready. Not ready, or ready too often in vain, and it is given up."""
        self.checks += 1
        if not ready or self.checks > UNHEEDED_CHECKS:
            self.lost = self._last
