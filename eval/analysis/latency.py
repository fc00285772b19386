"""One scenario of one target to its entry in report.json. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import scipy

from eval.plan.config import BASELINE_RTT, BURST, MAX_RATE, OVERLOAD_SCENARIOS, POISSON, RAMP, REPEAT, SINGLE
from eval.plan.rate_search import estimate_max_rate, evaluate_step
from eval.plan.schedule import NO_IMAGE
from eval.samples.model import Sample
from eval.statements import ReasonCode, reason, unavailable
from eval.stats.intervals import early_stopping_bounds, percentile, percentiles, tail_ratio
from service.schema import SERVER_TIMING_PARTS

OPEN_LOOP_SCENARIOS = (POISSON, RAMP, BURST, MAX_RATE)  # sent by a schedule of their own
CONNECTION_PHASES = ("dns", "connect", "tls")
CACHE_MEDIAN_RATIO = 0.8  # of the usual time; a picture that is repeated within it was probably not computed again
CACHE_BASELINE_N = 100  # single requests that the repeated ones are held against
CACHE_ALPHA = 0.01  # of the rank test


def scenario_report(name: str, samples: Sequence[Sample], slo_ms: float) -> dict[str, Any]:
    """Times of one scenario. A failure counts as a latency without end, and its time as busy time."""
    if name == MAX_RATE:
        return _rate_search_report(samples, slo_ms)
    return _latency_metrics(name, samples)


def normal_load(samples: Iterable[Sample]) -> list[Sample]:
    """Those that tell of the target at its usual work: with a picture, and not meant to overload it."""
    return [s for s in samples if s.image_index != NO_IMAGE and s.scenario not in OVERLOAD_SCENARIOS]


def baseline_rtt(samples: Iterable[Sample]) -> dict[str, Any]:
    """A round trip that does nothing: the least that network and front take."""
    return percentile(
        [s.service_time_ms for s in samples if s.scenario == BASELINE_RTT and s.error is None], 0.5
    ).to_report()


def cache_test(samples: Iterable[Sample]) -> dict[str, Any]:
    """Whether the same picture again is answered faster than new ones; then something in between remembers.

    The first answer to the repeated picture is left out: nobody could know it yet. Held against the last single
    requests, so that a target which became slower on the way is not taken for one with a cache.
    """
    succeeded = [s for s in samples if s.error is None]
    repeat_ms = [s.service_time_ms for s in succeeded if s.scenario == REPEAT and s.index_in_block > 0]
    baseline_ms = [s.service_time_ms for s in succeeded if s.scenario == SINGLE][-CACHE_BASELINE_N:]
    if not repeat_ms or not baseline_ms:
        return {"suspected": None, "reason": reason(ReasonCode.CACHE_SCENARIOS_NOT_RUN)}
    p = float(scipy.stats.mannwhitneyu(repeat_ms, baseline_ms, alternative="less").pvalue)
    suspected = median(repeat_ms) < CACHE_MEDIAN_RATIO * median(baseline_ms) and p < CACHE_ALPHA
    return {
        "suspected": suspected,
        "again_ms": median(repeat_ms),
        "new_ms": median(baseline_ms),
        "p": p,
        "n": len(repeat_ms),
    }


def max_rate(scenarios: Mapping[str, Any]) -> float | None:
    """The highest rate that was found to hold, in requests a second."""
    return scenarios.get(MAX_RATE, {}).get("max_rate_rps", {}).get("value")


def _latency_metrics(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    chronological = sorted(samples, key=lambda s: s.scheduled_s)
    succeeded = [s for s in chronological if s.error is None]
    latencies_ms = [s.latency_ms for s in succeeded]
    server_phases_ms = {
        phase: [s.server_timing_ms[phase] for s in succeeded if phase in s.server_timing_ms]
        for phase in SERVER_TIMING_PARTS
    }
    connection_phases_ms = {
        phase: [s.connection_ms[phase] for s in succeeded if phase in s.connection_ms] for phase in CONNECTION_PHASES
    }
    rates = sorted({s.rate_rps for s in samples if s.rate_rps is not None})
    latencies_with_failures_ms = [s.latency_ms if s.error is None else math.inf for s in chronological]
    return {
        "n": len(succeeded),
        "sent": len(samples),
        "errors": dict(sorted(Counter(s.error for s in samples if s.error).items())),
        "offered_rps": rates[-1] if rates else None,
        "latency_ms": percentiles(latencies_ms, autocorrelated=True),
        "latency_with_failures_ms": percentiles(latencies_with_failures_ms, autocorrelated=True),
        "latency_certified_ms": early_stopping_bounds(latencies_with_failures_ms),
        "tail_to_median": tail_ratio(latencies_ms).to_report(),
        "service_ms": percentiles([s.service_time_ms for s in succeeded], autocorrelated=True),
        "first_byte_ms": percentiles(
            [s.time_to_first_byte_ms for s in succeeded if s.time_to_first_byte_ms is not None]
        ),
        "network_ms": {phase: percentiles(values) for phase, values in connection_phases_ms.items() if values},
        "new_connections": sum(s.new_connection for s in samples),
        "server_ms": {phase: percentiles(values) for phase, values in server_phases_ms.items() if values},
        "throughput_rps": _throughput(name, chronological, len(succeeded)),
        "lateness_ms": {"p99": percentile([s.send_delay_ms for s in samples], 0.99).to_report()},
    }


def _throughput(name: str, chronological: Sequence[Sample], n_succeeded: int) -> float | dict[str, Any]:
    """Answers a second: of the time that requests took, or in a stream of the time that its blocks took."""
    if not n_succeeded:
        return unavailable(ReasonCode.NO_REQUEST_SUCCEEDED)
    if name not in OPEN_LOOP_SCENARIOS:
        busy_s = sum(s.latency_ms for s in chronological) / 1000
        return n_succeeded / busy_s if busy_s else unavailable(ReasonCode.ZERO_DURATION)
    blocks: dict[int, list[Sample]] = defaultdict(list)
    for s in chronological:
        blocks[s.block].append(s)
    elapsed_s = sum(
        max(s.scheduled_s + s.latency_ms / 1000 for s in block_samples) - block_samples[0].scheduled_s
        for block_samples in blocks.values()
    )
    return n_succeeded / elapsed_s if elapsed_s else unavailable(ReasonCode.ZERO_DURATION)


def _rate_search_report(samples: Sequence[Sample], slo_ms: float) -> dict[str, Any]:
    """The steps of the search, and the times of the highest rate that held."""
    blocks: dict[int, list[Sample]] = defaultdict(list)
    for s in samples:
        blocks[s.block].append(s)
    steps = [
        evaluate_step(step_samples[0].rate_rps or 0.0, step_samples, slo_ms)
        for _, step_samples in sorted(blocks.items())
    ]
    max_rate_estimate = estimate_max_rate(steps, slo_ms)
    best_step_samples = [s for s in samples if s.rate_rps == max_rate_estimate.value]
    step_reports = [
        {
            "rate_rps": s.rate_rps,
            "n": s.request_count,
            "failed": s.failed_count,
            "held": s.passed,
            "p95_ms": {
                "value": _finite_or_none(s.p95_ms),
                "low": _finite_or_none(s.p95_low_ms),
                "high": _finite_or_none(s.p95_high_ms),
            },
        }
        for s in sorted(steps, key=lambda step: step.rate_rps)
    ]
    metrics = _latency_metrics(MAX_RATE, best_step_samples)
    high_rps = (
        max_rate_estimate.high if max_rate_estimate.high is not None and math.isfinite(max_rate_estimate.high) else None
    )
    max_rate_report = (
        {**max_rate_estimate.to_report(), "high": high_rps}
        if max_rate_estimate.value is not None
        else max_rate_estimate.to_report()
    )
    return {**metrics, "slo_ms": slo_ms, "max_rate_rps": max_rate_report, "steps": step_reports}


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
