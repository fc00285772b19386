"""Search for the highest rate within the latency objective: doubling until a step fails, then bisection. Pure.

A step is a Poisson stream of one rate. It passes if the p95 of all its requests, with failures as infinite, is within
the objective, and at most 1% failed. The next rate follows from the steps so far, so a search can be resumed from its
samples alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from eval.codes import ReasonCode, reason
from eval.samples.columns import Samples
from eval.samples.model import Sample
from eval.stats.intervals import Estimate, interval_indices, min_sample_size, nearest_rank

P95 = 0.95
MAX_FAILED_FRACTION = 0.01  # of a step's requests
SIGNIFICANCE_LEVEL = 0.025  # probability of so many failures, or more, if no more than that fraction fail
MAX_BRACKET_RATIO = 1.05  # of the lowest failed to the highest passed rate, at which the search ends
MIN_RATE_RPS = 0.05


@dataclass(frozen=True)
class SearchStep:
    """One rate that was tested."""

    rate_rps: float  # offered
    request_count: int  # dropped ones included
    failed_count: int
    p95_ms: float  # with failures as infinite
    p95_low_ms: float  # its 95% interval
    p95_high_ms: float
    passed: bool
    conclusive: bool = True  # whether the interval, or the fraction of failures, leaves no doubt


def evaluate_step(rate_rps: float, samples: Iterable[Sample], slo_ms: float) -> SearchStep:
    """The result of a step."""
    ordered_samples = Samples.of(samples).chronological()
    failed = ordered_samples.failed()
    failed_count = int(failed.sum())
    latencies_ms = np.where(failed, math.inf, ordered_samples.array("latency_ms"))
    sorted_ms = np.sort(latencies_ms)
    p95_ms, low_ms, high_ms = nearest_rank(sorted_ms, P95) if len(sorted_ms) else math.inf, 0.0, math.inf
    if len(sorted_ms) >= min_sample_size(P95):
        low_index, high_index = interval_indices(latencies_ms, sorted_ms, P95)
        low_ms = float(sorted_ms[low_index])
        high_ms = float(sorted_ms[high_index]) if high_index < len(sorted_ms) else math.inf
    n = len(ordered_samples)
    too_many_failed = failed_count > MAX_FAILED_FRACTION * n
    passed = p95_ms <= slo_ms and not too_many_failed
    surely_failed = scipy.stats.binom.sf(failed_count - 1, n, MAX_FAILED_FRACTION) <= SIGNIFICANCE_LEVEL
    conclusive = high_ms <= slo_ms if passed else bool(surely_failed) or low_ms > slo_ms
    return SearchStep(rate_rps, n, failed_count, p95_ms, low_ms, high_ms, passed, conclusive)


def rate_bracket(steps: Sequence[SearchStep]) -> tuple[float | None, float | None]:
    """The highest rate that passed and the lowest that failed above it. A rate that passed once of two times passed.

    A step that passed above a failed one does not count: a target that fails at a rate fails above it.
    """
    passed_rates = {s.rate_rps for s in steps if s.passed}
    lowest_failed_rps = min((s.rate_rps for s in steps if s.rate_rps not in passed_rates), default=None)
    highest_passed_rps = max(
        (rate for rate in passed_rates if lowest_failed_rps is None or rate < lowest_failed_rps), default=None
    )
    return highest_passed_rps, lowest_failed_rps


def next_rate(steps: Sequence[SearchStep], start_rps: float, max_steps: int) -> float | None:
    """The rate to try next, or None when the search is over."""
    highest_passed_rps, lowest_failed_rps = rate_bracket(steps)
    if len(steps) >= max_steps:
        return None
    if not steps:
        return start_rps
    if _repeats_last(steps):
        return steps[-1].rate_rps  # once more: a disturbance of the machine would cap the whole search
    if lowest_failed_rps is None:
        return steps[-1].rate_rps * 2
    if highest_passed_rps is None:
        return lowest_failed_rps / 2 if lowest_failed_rps / 2 >= MIN_RATE_RPS else None
    return (
        None
        if lowest_failed_rps / highest_passed_rps <= MAX_BRACKET_RATIO
        else math.sqrt(highest_passed_rps * lowest_failed_rps)
    )


def _repeats_last(steps: Sequence[SearchStep]) -> bool:
    """Whether the last step failed within doubt, and for the first time at its rate."""
    last_step = steps[-1] if steps else None
    if last_step is None or last_step.passed or last_step.conclusive:
        return False
    return sum(step.rate_rps == last_step.rate_rps for step in steps) == 1


def max_remaining_steps(steps: Sequence[SearchStep], start_rps: float, max_steps: int) -> int:
    """The most steps that may follow. It falls by at least one with every step.

    How often the rate doubles is not known beforehand. The halvings and bisections are, and each may be tried twice.
    """
    if next_rate(steps, start_rps, max_steps) is None:
        return 0
    if _repeats_last(steps):
        return max_remaining_steps(steps[:-1], start_rps, max_steps) - 1  # the second try of its rate is counted there
    highest_passed_rps, lowest_failed_rps = rate_bracket(steps)
    most = max_steps - len(steps)
    if lowest_failed_rps is None:
        return most
    if highest_passed_rps is None:
        rates = math.floor(math.log2(lowest_failed_rps / MIN_RATE_RPS)) + _bisections(2)
    else:
        rates = _bisections(lowest_failed_rps / highest_passed_rps)
    return min(most, 2 * rates)


def _bisections(ratio: float) -> int:
    """How many halve a bracket of that ratio until it is narrow enough."""
    return math.ceil(math.log2(math.log(ratio) / math.log(MAX_BRACKET_RATIO)))


def estimate_max_rate(steps: Sequence[SearchStep], slo_ms: float) -> Estimate:
    """The highest rate that passed, between the highest that conclusively passed and the lowest that failed so.

    Conclusively: the whole interval of the step's p95 lies on one side of the objective.
    """
    highest_passed_rps, lowest_failed_rps = rate_bracket(steps)
    if highest_passed_rps is None:
        if lowest_failed_rps is None:
            return Estimate(None, reason=reason(ReasonCode.NO_RATE_TRIED))
        return Estimate(None, reason=reason(ReasonCode.NO_RATE_PASSED, lowest_rate_rps=lowest_failed_rps))
    conclusive_low_rps = max(
        (s.rate_rps for s in steps if s.rate_rps <= highest_passed_rps and s.p95_high_ms <= slo_ms), default=0.0
    )
    conclusive_high_rps = min(
        (s.rate_rps for s in steps if s.rate_rps > highest_passed_rps and not s.passed and s.p95_low_ms > slo_ms),
        default=math.inf)  # fmt: skip
    return Estimate(highest_passed_rps, conclusive_low_rps, conclusive_high_rps, len(steps))
