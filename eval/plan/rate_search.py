"""The highest rate at which a target keeps its promise: doubling until it breaks, then bisection. Pure.

A step is a Poisson stream of one rate. It holds when p95 of all its requests, failures counting as endless, is within
the objective, and hardly any failed. The next rate follows from the steps so far, so a search that was ended can be
gone on with from its samples alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eval.samples.model import Sample
from eval.stats.intervals import Estimate, least_n, nearest_rank, ranks_in_time

P95 = 0.95
FAILED_SHARE = 0.01  # of a step's requests, at most
RESOLUTION = 1.05  # the search ends when the lowest broken rate is no more than this over the highest held one
LOWEST_RPS = 0.05


@dataclass(frozen=True)
class Step:
    """One rate that was tried."""

    rate_rps: float  # offered
    n: int  # requests, the ones never sent included
    failed: int
    p95_ms: float  # failures as infinite
    p95_low_ms: float  # its 95% interval
    p95_high_ms: float
    held: bool
    sure: bool = True  # whether the interval, or the share that failed, leaves no doubt of it


def judged(rate_rps: float, samples: Iterable[Sample], slo_ms: float) -> Step:
    """What came of a step."""
    taken = sorted(samples, key=lambda s: s.started_s)
    failed = sum(s.error is not None for s in taken)
    in_time = [math.inf if s.error else s.latency_ms for s in taken]
    latencies = sorted(in_time)
    p95_ms, low_ms, high_ms = nearest_rank(latencies, P95) if latencies else math.inf, 0.0, math.inf
    if len(taken) >= least_n(P95):
        low, high = ranks_in_time(latencies, in_time, P95)
        low_ms, high_ms = latencies[low - 1], latencies[high - 1]
    failing = failed > FAILED_SHARE * len(taken)
    held = p95_ms <= slo_ms and not failing
    sure = high_ms <= slo_ms if held else failing or low_ms > slo_ms
    return Step(rate_rps, len(taken), failed, p95_ms, low_ms, high_ms, held, sure)


def bounds(steps: Sequence[Step]) -> tuple[float | None, float | None]:
    """The highest rate that held and the lowest that broke above it. A rate that held in one of two tries held.

    A step that held by luck above one that broke does not count: a target that breaks at a rate breaks beyond it.
    """
    good = {s.rate_rps for s in steps if s.held}
    broke = min((s.rate_rps for s in steps if s.rate_rps not in good), default=None)
    held = max((rate for rate in good if broke is None or rate < broke), default=None)
    return held, broke


def next_rate(steps: Sequence[Step], start_rps: float, most: int) -> float | None:
    """The rate to try next, or None when the search is over."""
    held, broke = bounds(steps)
    if len(steps) >= most:
        return None
    if not steps:
        return start_rps
    last = steps[-1]
    if not last.held and not last.sure and sum(s.rate_rps == last.rate_rps for s in steps) == 1:
        return last.rate_rps  # once more: a hiccup of the machine would cap the whole search
    if broke is None:
        return last.rate_rps * 2
    if held is None:
        return broke / 2 if broke / 2 >= LOWEST_RPS else None
    return None if broke / held <= RESOLUTION else math.sqrt(held * broke)


def found(steps: Sequence[Step], slo_ms: float) -> Estimate:
    """The highest rate that held, between the highest that held for sure and the lowest that broke for sure.

    For sure: the whole interval of the step's p95 lies on one side of the objective.
    """
    held, broke = bounds(steps)
    if held is None:
        tried = "no rate was tried" if broke is None else f"it broke already at {broke:g} requests/s"
        return Estimate(None, reason=tried)
    low = max((s.rate_rps for s in steps if s.rate_rps <= held and s.p95_high_ms <= slo_ms), default=0.0)
    high = min((s.rate_rps for s in steps if s.rate_rps > held and not s.held and s.p95_low_ms > slo_ms),
               default=math.inf)  # fmt: skip
    return Estimate(held, low, high, len(steps))
