"""How far arrivals are from a regular schedule. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EDGE_S = 1.0  # left out at the begin, while connections are made, and at the end


@dataclass(frozen=True)
class Timing:
    """Deviations of arrivals from the regular schedule that fits them best: absolute values, in milliseconds."""

    arrived: int
    left_out: int  # requests of the schedule that never came
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def timing_of(arrivals_ns: Sequence[int], rate_rps: float) -> Timing:
    """The timing of arrivals at a constant rate, without the first and the last second.

    The schedule has the period of the rate, and the phase with the smallest sum of deviations. A request that is late
    is caught up with, and one that was left out never is: where all that follows is behind by whole periods, so many
    were left out.
    """
    times_s = (np.sort(np.asarray(arrivals_ns, np.int64)) - min(arrivals_ns, default=0)) / 1e9
    period_s = 1 / rate_rps
    behind_s = times_s - np.arange(len(times_s)) * period_s
    always_behind_s = np.minimum.accumulate(behind_s[::-1])[::-1]  # from here on
    within = (times_s >= EDGE_S) & (times_s <= times_s.max(initial=0) - EDGE_S)
    if not within.any():
        raise ValueError(f"{len(times_s)} arrivals, and none between the first and the last {EDGE_S:g} s")
    skipped = np.round((always_behind_s[within] - always_behind_s[within][0]) / period_s)
    late_s = behind_s[within] - skipped * period_s
    deviations_ms = np.abs(late_s - np.median(late_s)) * 1000
    p50_ms, p90_ms, p99_ms = np.quantile(deviations_ms, [0.5, 0.9, 0.99]).tolist()
    return Timing(len(late_s), int(skipped[-1]), p50_ms, p90_ms, p99_ms, float(deviations_ms.max()))


def without_edges(delays_ms: Sequence[float], rate_rps: float) -> Sequence[float]:
    """What was recorded of the same requests, in the order of the schedule."""
    edge = round(EDGE_S * rate_rps)
    return delays_ms[edge : len(delays_ms) - edge]
