"""Estimates with their 95% confidence intervals, or the reason why the sample is too small for one.

A percentile's interval comes from order statistics: the number of samples below the true percentile is binomial,
whatever the distribution. So it needs no model of latency, and it exists only from a certain sample size on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import binom, binomtest

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2  # on either side
PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None  # how many samples it stands on
    reason: str | None = None  # why `value` is None

    def to_json(self) -> dict[str, Any]:
        """As report.json has it."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def least_n(p: float) -> int:
    """The smallest sample whose order statistics enclose the p-quantile on both sides."""
    return math.ceil(math.log(TAIL) / math.log(max(p, 1 - p)))


def ranks(p: float, n: int) -> tuple[int, int]:
    """Ranks (from 1) of the two samples between which the p-quantile lies, but for 2.5% on either side at most."""
    low, high = binom.ppf([TAIL, 1 - TAIL], n, p)
    return int(low), int(high) + 1


def nearest_rank(ordered: list[float], p: float) -> float:
    """The smallest sample that at least a share p of all samples does not exceed. Exact for infinities too."""
    return ordered[max(0, math.ceil(round(p * len(ordered), 9)) - 1)]


def percentile(values: Collection[float], p: float) -> Estimate:
    """The p-quantile. An infinite value stands for a request that never got its answer."""
    n = len(values)
    if n < least_n(p):
        return Estimate(None, reason=f"needs n >= {least_n(p)}, have {n}")
    ordered = sorted(values)
    low, high = ranks(p, n)
    if math.isinf(ordered[high - 1]):
        failed = sum(map(math.isinf, ordered))
        what = "it" if math.isinf(nearest_rank(ordered, p)) else "the upper end of its interval"
        return Estimate(None, reason=f"{what} is infinite: {failed} of {n} requests failed")
    return Estimate(nearest_rank(ordered, p), ordered[low - 1], ordered[high - 1], n)


def percentiles(values: Collection[float]) -> dict[str, dict[str, Any]]:
    """p50, p90, p95 and p99 as report.json has them."""
    return {name: percentile(values, p).to_json() for name, p in PERCENTILES.items()}


def proportion(successes: int, n: int, what: str = "samples") -> Estimate:
    """A share with its Wilson interval."""
    if n == 0:
        return Estimate(None, reason=f"no {what}")
    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two estimates of report.json cannot be told apart."""
    return a["low"] <= b["high"] and b["low"] <= a["high"]
