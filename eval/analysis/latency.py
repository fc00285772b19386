"""Latency and throughput of one scenario of one target. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import scipy

from eval.analysis.drift import DriftReport
from eval.codes import Reason, ReasonCode, Unavailable, reason, unavailable
from eval.plan.config import BASELINE_RTT, BURST, MAX_RATE, OVERLOAD_SCENARIOS, REPEAT, SINGLE
from eval.plan.rate_search import estimate_max_rate, evaluate_step
from eval.plan.schedule import NO_IMAGE
from eval.samples.columns import Samples
from eval.samples.model import Sample, TargetRun
from eval.samples.rounds import split_after_pause
from eval.stats.intervals import (
    Estimate,
    early_stopping_bounds,
    numbered_instances,
    percentile,
    percentiles,
    tail_ratio,
)
from service.schema import SERVER_TIMING_PARTS

CAPACITY_SCENARIOS = (BURST, MAX_RATE)  # the load reaches what the target can do
CONNECTION_PHASES = ("dns", "connect", "tls")
OPEN_LOOP_FIELDS = ("rate_rps", "send_delay_ms")  # that a sample of a closed loop lacks
MIN_BREAK_S = 0.02  # without a request, after which a burst is sent on; the clocks of several senders agree to 10 ms
BREAK_ARRIVALS = 20  # so many mean gaps without a request are no chance of a Poisson stream: it was cut, and sent on
CACHE_MEDIAN_RATIO = 0.8  # of the usual time; an image that is repeated within it was probably not computed again
CACHE_BASELINE_N = 100  # single requests that the repeated ones are compared with
CACHE_ALPHA = 0.01  # of the rank test


@dataclass(frozen=True)
class ScenarioReport:
    """One scenario of one target. Times are of the requests that succeeded unless the name says otherwise.

    Counts are of all requests; times leave out the first request after a pause, which has a figure of its own.
    """

    succeeded: int
    sent: int
    errors: dict[str, int]  # kind -> requests
    offered_rps: float | None
    latency_ms: dict[str, Estimate]  # by percentile
    after_pause_ms: Estimate | None  # median latency of the first request of a block; None: nothing is set apart
    latency_with_failures_ms: dict[str, Estimate]  # a failure counts as infinite
    latency_early_stopping_ms: dict[str, Estimate]  # MLPerf's bounds
    tail_ratio: Estimate  # p99 over p50
    service_time_ms: dict[str, Estimate]
    time_to_first_byte_ms: dict[str, Estimate]
    connection_ms: dict[str, dict[str, Estimate]]  # by phase
    new_connections: int
    server_timing_ms: dict[str, dict[str, Estimate]]  # by part of Server-Timing
    throughput_rps: float | Unavailable | None  # None: the load did not reach what the target can do
    send_delay_ms: dict[str, Estimate] | None  # None in a closed loop, where nothing is scheduled
    drift: DriftReport | Unavailable | None


@dataclass(frozen=True)
class RateStep:
    """One rate of the search for the highest."""

    rate_rps: float
    sent: int
    failed: int
    passed: bool
    p95_ms: Estimate  # without a value where so many failed that it is infinite


@dataclass(frozen=True)
class RateSearchReport(ScenarioReport):
    """The search for the highest rate within the objective; its times are those of the highest rate that passed."""

    slo_ms: float
    max_rate_rps: Estimate
    steps: list[RateStep]  # by rate


@dataclass(frozen=True)
class CacheTest:
    """Whether the same image again is faster than new ones; then there is a cache in between."""

    suspected: bool | None
    repeat_ms: float | None = None  # median
    baseline_ms: float | None = None  # median of new images
    p: float | None = None
    n: int | None = None
    reason: Reason | None = None  # why it was not tested


def scenario_report(
    name: str, samples: Sequence[Sample], slo_ms: float, drift: DriftReport | Unavailable | None = None
) -> ScenarioReport:
    """Times of one scenario."""
    if name == MAX_RATE:
        return _rate_search_report(samples, slo_ms, drift)
    return ScenarioReport(**_latency_metrics(name, samples), drift=drift)


def normal_load(samples: Iterable[Sample]) -> Samples:
    """Those at normal load: with an image, and not meant to overload the target; all where nothing else was tried."""
    samples = Samples.of(samples)
    with_image = samples.where(samples.array("image_index") != NO_IMAGE)
    return with_image.where(~with_image.equal("scenario", *OVERLOAD_SCENARIOS)) or with_image


def baseline_rtt(samples: Iterable[Sample]) -> Estimate:
    """A round trip that does nothing: the minimum of network and proxy. Without the first ones after a pause."""
    _, round_trips = split_after_pause(Samples.of(samples).with_("scenario", BASELINE_RTT))
    return percentile(round_trips.succeeded.array("service_time_ms"), 0.5)


def network_ms(target_run: TargetRun, samples: Iterable[Sample]) -> float:
    """What of the client's time is no work of the instance; 0 where no round trip was measured, and of a twin, which is
    on the loopback."""
    return 0.0 if target_run.twin else baseline_rtt(samples).value or 0.0


def cache_test(samples: Sequence[Sample]) -> CacheTest:
    """Compares repeated images with the last single requests, so that a slower target is not taken for a cache.

    The first response to the repeated image is left out, as after any pause: no cache could have it yet.
    """
    repeat_ms, baseline_ms = (
        split_after_pause(Samples.of(samples).with_("scenario", scenario))[1]
        .succeeded.array("service_time_ms")
        .tolist()
        for scenario in (REPEAT, SINGLE)
    )
    baseline_ms = baseline_ms[-CACHE_BASELINE_N:]
    if not repeat_ms or not baseline_ms:
        return CacheTest(suspected=None, reason=reason(ReasonCode.CACHE_SCENARIOS_NOT_RUN))
    p = float(scipy.stats.mannwhitneyu(repeat_ms, baseline_ms, alternative="less").pvalue)
    suspected = median(repeat_ms) < CACHE_MEDIAN_RATIO * median(baseline_ms) and p < CACHE_ALPHA
    return CacheTest(suspected, median(repeat_ms), median(baseline_ms), p, len(repeat_ms))


def max_rate(scenarios: Mapping[str, ScenarioReport]) -> float | None:
    """The highest rate that passed, in requests a second."""
    search = scenarios.get(MAX_RATE)
    return search.max_rate_rps.value if isinstance(search, RateSearchReport) else None


def at_rate(samples: Samples, rate_rps: float | None) -> Samples:
    """Those of one offered rate; None: those without."""
    rates = samples.array("rate_rps")
    return samples.where(np.isnan(rates) if rate_rps is None else rates == rate_rps)


def billed_samples(samples: Samples, scenario: str | None) -> Samples:
    """Those by which a target is priced: what succeeded, and of a search for the highest rate what its lowest did.

    No queue has lengthened these.
    """
    succeeded = samples.with_("scenario", scenario).succeeded
    if scenario != MAX_RATE:
        return succeeded
    rates = np.nan_to_num(succeeded.array("rate_rps"))
    return succeeded.where(rates == rates.min(initial=np.inf))


def _latency_metrics(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    chronological = Samples.of(samples).chronological()
    after_pause, timed = split_after_pause(chronological)
    succeeded = timed.succeeded
    latencies_ms, instances = succeeded.array("latency_ms"), numbered_instances(succeeded.instances())
    all_instances = numbered_instances(timed.instances())

    def percentiles_of(values: np.ndarray) -> dict[str, Estimate]:
        """Of those successful requests that have the part."""
        known = ~np.isnan(values)
        return percentiles(values[known], numbered_instances(succeeded.instances()[known]))

    def parts(name: str, known_parts: Sequence[str]) -> dict[str, dict[str, Estimate]]:
        columns = {part: succeeded.durations(name, part) for part in known_parts}
        return {part: percentiles_of(column) for part, column in columns.items() if not np.isnan(column).all()}

    rates, send_delays_ms = (column[~np.isnan(column)] for column in map(chronological.array, OPEN_LOOP_FIELDS))
    latencies_with_failures_ms = np.where(timed.failed(), math.inf, timed.array("latency_ms"))
    n_succeeded = len(chronological.succeeded)
    return {
        "succeeded": n_succeeded,
        "sent": len(samples),
        "errors": errors_by_kind(chronological),
        "offered_rps": float(rates.max()) if len(rates) else None,
        "latency_ms": percentiles(latencies_ms, instances),
        "after_pause_ms": percentile(after_pause.succeeded.array("latency_ms"), 0.5) if after_pause else None,
        "latency_with_failures_ms": percentiles(latencies_with_failures_ms, all_instances),
        "latency_early_stopping_ms": early_stopping_bounds(latencies_with_failures_ms, all_instances),
        "tail_ratio": tail_ratio(latencies_ms, instances),
        "service_time_ms": percentiles(succeeded.array("service_time_ms"), instances),
        "time_to_first_byte_ms": percentiles_of(succeeded.array("time_to_first_byte_ms")),
        "connection_ms": parts("connection_ms", CONNECTION_PHASES),
        "new_connections": int(chronological.array("new_connection").sum()),
        "server_timing_ms": parts("server_timing_ms", SERVER_TIMING_PARTS),
        "throughput_rps": _throughput(name, chronological, n_succeeded),
        "send_delay_ms": {"p99": percentile(send_delays_ms, 0.99)} if len(send_delays_ms) else None,
    }


def errors_by_kind(samples: Samples) -> dict[str, int]:
    """Kind -> failed requests."""
    return dict(sorted((kind, n) for kind, n in samples.counts("error").items() if kind is not None))


def _throughput(name: str, chronological: Samples, n_succeeded: int) -> float | Unavailable | None:
    """Responses a second, over the time that the blocks took. Only where the load reaches what the target can do.

    In a closed loop it would be the inverse of the latency, in an open loop the rate that was offered.
    """
    if name not in CAPACITY_SCENARIOS:
        return None
    if not n_succeeded:
        return unavailable(ReasonCode.NO_REQUEST_SUCCEEDED)
    elapsed_s = sum(map(_elapsed_s, chronological.by("block").values()))
    return n_succeeded / elapsed_s if elapsed_s else unavailable(ReasonCode.ZERO_DURATION)


def _elapsed_s(block: Samples) -> float:
    """The time that a block took, without what lies between its parts: the run ended in it, or its client paused."""
    scheduled_s = block.array("scheduled_s")
    finished_s = np.maximum.accumulate(scheduled_s + block.array("latency_ms") / 1000)
    break_s = max(MIN_BREAK_S, BREAK_ARRIVALS / (block[0].rate_rps or math.inf))
    last = np.append(scheduled_s[1:] - finished_s[:-1] > break_s, True)  # of a part
    first = np.append(True, last[:-1])
    return float((finished_s[last] - scheduled_s[first]).sum())


def _rate_search_report(
    samples: Sequence[Sample], slo_ms: float, drift: DriftReport | Unavailable | None
) -> RateSearchReport:
    samples = Samples.of(samples)
    blocks = samples.by("block")
    steps = [evaluate_step(blocks[block][0].rate_rps or 0.0, blocks[block], slo_ms) for block in sorted(blocks)]
    max_rate_estimate = estimate_max_rate(steps, slo_ms)
    best_step_samples = at_rate(samples, max_rate_estimate.value)
    high_rps = max_rate_estimate.high
    return RateSearchReport(
        **_latency_metrics(MAX_RATE, best_step_samples),
        drift=drift,
        slo_ms=slo_ms,
        max_rate_rps=replace(max_rate_estimate, high=None if high_rps is None else _finite_or_none(high_rps)),
        steps=[
            RateStep(
                step.rate_rps,
                step.request_count,
                step.failed_count,
                step.passed,
                Estimate(
                    _finite_or_none(step.p95_ms), _finite_or_none(step.p95_low_ms), _finite_or_none(step.p95_high_ms)
                ),
            )
            for step in sorted(steps, key=lambda step: step.rate_rps)
        ],
    )


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
