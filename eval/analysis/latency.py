"""One scenario of one target to its entry in report.json. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import scipy

from eval.plan.config import BURST, FLOOR, MAX_RATE, OVERLOADING, POISSON, RAMP, REPEAT, SINGLE
from eval.plan.rate_search import found, judged
from eval.plan.schedule import NO_PICTURE
from eval.samples.model import Sample
from eval.stats.intervals import certificates, percentile, percentiles, tail_to_median
from service.schema import SERVER_TIMING_PARTS

OPEN = (POISSON, RAMP, BURST, MAX_RATE)  # sent by a schedule of their own
NETWORK_PARTS = ("dns", "connect", "tls")
CACHE_SHARE = 0.8  # of the usual time; a picture that is repeated within it was probably not computed again
CACHE_NEW = 100  # single requests that the repeated ones are held against
CACHE_LEVEL = 0.01  # of the rank test


def scenario_json(name: str, samples: Sequence[Sample], slo_ms: float) -> dict[str, Any]:
    """Times of one scenario. A failure counts as a latency without end, and its time as busy time."""
    if name == MAX_RATE:
        return _search_json(samples, slo_ms)
    return _times(name, samples)


def at_work(samples: Iterable[Sample]) -> list[Sample]:
    """Those that tell of the target at its usual work: with a picture, and not meant to overload it."""
    return [s for s in samples if s.image != NO_PICTURE and s.scenario not in OVERLOADING]


def floor_json(samples: Iterable[Sample]) -> dict[str, Any]:
    """A round trip that does nothing: the least that network and front take."""
    return percentile([s.service_ms for s in samples if s.scenario == FLOOR and s.error is None], 0.5).to_json()


def cache_json(samples: Iterable[Sample]) -> dict[str, Any]:
    """Whether the same picture again is answered faster than new ones; then something in between remembers.

    The first answer to the repeated picture is left out: nobody could know it yet. Held against the last single
    requests, so that a target which became slower on the way is not taken for one with a cache.
    """
    taken = [s for s in samples if s.error is None]
    again = [s.service_ms for s in taken if s.scenario == REPEAT and s.place > 0]
    new = [s.service_ms for s in taken if s.scenario == SINGLE][-CACHE_NEW:]
    if not again or not new:
        return {"suspected": None, "reason": "needs the scenarios single and repeat"}
    p = float(scipy.stats.mannwhitneyu(again, new, alternative="less").pvalue)
    faster = median(again) < CACHE_SHARE * median(new) and p < CACHE_LEVEL
    return {"suspected": faster, "again_ms": median(again), "new_ms": median(new), "p": p, "n": len(again)}


def max_rate(scenarios: Mapping[str, Any]) -> float | None:
    """The highest rate that was found to hold, in requests a second."""
    return scenarios.get(MAX_RATE, {}).get("max_rate_rps", {}).get("value")


def _times(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    in_time = sorted(samples, key=lambda s: s.started_s)
    answered = [s for s in in_time if s.error is None]
    latencies = [s.latency_ms for s in answered]
    parts = {part: [s.server_ms[part] for s in answered if part in s.server_ms] for part in SERVER_TIMING_PARTS}
    network = {part: [s.network_ms[part] for s in answered if part in s.network_ms] for part in NETWORK_PARTS}
    rates = sorted({s.rate_rps for s in samples if s.rate_rps is not None})
    with_failures = [s.latency_ms if s.error is None else math.inf for s in in_time]
    return {
        "n": len(answered),
        "sent": len(samples),
        "errors": dict(sorted(Counter(s.error for s in samples if s.error).items())),
        "offered_rps": rates[-1] if rates else None,
        "latency_ms": percentiles(latencies, correlated=True),
        "latency_with_failures_ms": percentiles(with_failures, correlated=True),
        "latency_certified_ms": certificates(with_failures),
        "tail_to_median": tail_to_median(latencies).to_json(),
        "service_ms": percentiles([s.service_ms for s in answered], correlated=True),
        "first_byte_ms": percentiles([s.first_byte_ms for s in answered if s.first_byte_ms is not None]),
        "network_ms": {part: percentiles(values) for part, values in network.items() if values},
        "new_connections": sum(s.new_connection for s in samples),
        "server_ms": {part: percentiles(values) for part, values in parts.items() if values},
        "throughput_rps": _throughput(name, in_time, len(answered)),
        "lateness_ms": {"p99": percentile([s.lateness_ms for s in samples], 0.99).to_json()},
    }


def _throughput(name: str, in_time: Sequence[Sample], answered: int) -> float | dict[str, Any]:
    """Answers a second: of the time that requests took, or in a stream of the time that its blocks took."""
    if not answered:
        return {"value": None, "reason": "no request was answered"}
    if name not in OPEN:
        busy_s = sum(s.latency_ms for s in in_time) / 1000
        return answered / busy_s if busy_s else {"value": None, "reason": "the answers took no time"}
    blocks: dict[int, list[Sample]] = defaultdict(list)
    for s in in_time:
        blocks[s.block].append(s)
    lasted_s = sum(
        max(s.started_s + s.latency_ms / 1000 for s in block) - block[0].started_s for block in blocks.values()
    )
    return answered / lasted_s if lasted_s else {"value": None, "reason": "the answers took no time"}


def _search_json(samples: Sequence[Sample], slo_ms: float) -> dict[str, Any]:
    """The steps of the search, and the times of the highest rate that held."""
    blocks: dict[int, list[Sample]] = defaultdict(list)
    for s in samples:
        blocks[s.block].append(s)
    steps = [judged(of[0].rate_rps or 0.0, of, slo_ms) for _, of in sorted(blocks.items())]
    rate = found(steps, slo_ms)
    best = [s for s in samples if s.rate_rps == rate.value]
    listed = [
        {"rate_rps": s.rate_rps, "n": s.n, "failed": s.failed, "held": s.held,
         "p95_ms": {"value": _finite(s.p95_ms), "low": _finite(s.p95_low_ms), "high": _finite(s.p95_high_ms)}}
        for s in sorted(steps, key=lambda step: step.rate_rps)
    ]  # fmt: skip
    times = _times(MAX_RATE, best)
    high = rate.high if rate.high is not None and math.isfinite(rate.high) else None
    it = {**rate.to_json(), "high": high} if rate.value is not None else rate.to_json()
    return {**times, "slo_ms": slo_ms, "max_rate_rps": it, "steps": listed}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
