"""The instances of a target that were measured, and how much they differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, stdev

from eval.codes import ReasonCode, Unavailable, unavailable
from eval.plan.config import SINGLE
from eval.samples.columns import Samples
from eval.samples.model import Sample
from eval.stats.intervals import MIN_INSTANCES, min_sample_size

MIN_REQUESTS = min_sample_size(0.5)  # of an instance: with fewer its median has no interval


@dataclass(frozen=True)
class InstanceSpread:
    """How much the instances differ: the standard deviation of their median latencies. Chance and drift are in it."""

    sd_ms: float
    fraction_of_p50: float


@dataclass(frozen=True)
class InstanceReport:
    """The instances of one target."""

    seen: int  # that responded at normal load
    measured: int  # that responded to enough single requests for a median
    spread: InstanceSpread | Unavailable
    in_intervals: bool  # whether the intervals of the scenario single have the variance between instances


def instance_report(succeeded: Sequence[Sample]) -> InstanceReport:
    """Of the successful requests at normal load."""
    succeeded = Samples.of(succeeded)
    by_instance = succeeded.with_("scenario", SINGLE).by("instance_id")
    latencies_ms = {name: of.array("latency_ms").tolist() for name, of in by_instance.items() if name}
    medians_ms = [median(values) for values in latencies_ms.values() if len(values) >= MIN_REQUESTS]
    return InstanceReport(
        seen=sum(map(bool, succeeded.counts("instance_id"))),
        measured=len(medians_ms),
        spread=unavailable(ReasonCode.ONE_INSTANCE)
        if len(latencies_ms) == 1
        else _spread(medians_ms, [ms for values in latencies_ms.values() for ms in values]),
        in_intervals=len(latencies_ms) >= MIN_INSTANCES,
    )


def _spread(medians_ms: Sequence[float], latencies_ms: Sequence[float]) -> InstanceSpread | Unavailable:
    if len(medians_ms) < 2:
        return unavailable(ReasonCode.TOO_FEW_INSTANCES_KNOWN, min_requests=MIN_REQUESTS)
    sd_ms, p50_ms = stdev(medians_ms), median(latencies_ms)
    if not p50_ms:
        return unavailable(ReasonCode.ZERO_LATENCY)
    return InstanceSpread(sd_ms, sd_ms / p50_ms)
