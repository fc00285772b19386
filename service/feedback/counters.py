"""The counters of feedback among those of GET /metrics."""

from __future__ import annotations

import threading
from functools import cache

from prometheus_client import CollectorRegistry, Counter

MAX_VERSIONS = 4  # of the model whose series are kept: feedback comes after a switch, too


class FeedbackCounters:
    """Series come with their first feedback. Labels are classes of the model and our own words, never a client's."""

    def __init__(self, registry: CollectorRegistry):
        own = {"namespace": "classifier", "registry": registry}
        names = ("version", "label", "outcome")
        self._judged = Counter("feedback", "Predictions whose true class was said, by that class", names, **own)
        refused = Counter("feedback_refused", "Feedback that was not counted, by reason", ("reason",), **own)
        self._refused = cache(refused.labels)
        self._series: dict[str, set[tuple[str, str]]] = {}  # version -> its labels and outcomes
        self._lock = threading.Lock()  # guards the series

    def judged(self, version: str, label: str, *, is_right: bool) -> None:
        """Count one prediction; `label` is its true class."""
        outcome = "right" if is_right else "wrong"
        with self._lock:
            if version not in self._series and len(self._series) == MAX_VERSIONS:
                oldest = next(iter(self._series))
                for series in self._series.pop(oldest):
                    self._judged.remove(oldest, *series)
            self._series.setdefault(version, set()).add((label, outcome))
            self._judged.labels(version, label, outcome).inc()

    def refused(self, reason: str) -> None:
        """Count feedback that was refused; `reason` is that of a FeedbackProblem, or malformed."""
        self._refused(reason).inc()
