"""Cold starts: which first requests were proven to be such, and what they cost a user. Pure.

    proven    the answer says that it was its instance's first prediction (X-Request-Ordinal is 1), and that instance
              had answered nothing in the run before. Never guessed: a slow request is no cold start for being slow,
              and a fast one can be a cold start. What is not proven is in no figure, and counted by reason.
    forced    a twin was restarted, or a new revision was made; scenario "cold"
    natural   the target was left alone for a while; scenario "idle"

Two times are given, because platforms differ in which of them a user feels. `create_ms` runs from the start command
to the first correct prediction. `latency_ms` is the first request alone: where a platform holds requests while an
instance starts, the start is in it; a twin has no platform, so there it begins when the twin says that it is ready.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.plan.config import COLD, IDLE, SINGLE
from eval.samples.model import PROCESS_START, TIME_TO_FIRST_PREDICTION, Sample, TargetRun
from eval.statements import ReasonCode, reason, unavailable
from eval.stats.intervals import Estimate, percentile, proportion
from infra.targets import TARGETS
from service.classifier import PHASES as SERVICE_PHASES

FORCED_START, IDLE_START = "forced", "idle"  # keys of report.json
SCENARIO_OF_START = {FORCED_START: COLD, IDLE_START: IDLE}
NOT_TESTED_CODE = {FORCED_START: ReasonCode.NO_FORCED_START, IDLE_START: ReasonCode.NO_IDLE_GAP}
STARTUP_PHASES = (PROCESS_START, *SERVICE_PHASES)
TIME_TO_FIRST_PREDICTION_MS, LATENCY_MS = "create_ms", "latency_ms"  # the two times
PLATFORM_OVERHEAD = (
    "outside"  # what is left of a start: the way of the request there and back, the platform, the prediction
)
DISCARD_REASONS = (
    "unmarked",  # the response does not say which instance sent it, or how many it had sent
    "not_first",  # the instance had sent predictions before
    "known_instance",  # the instance had responded in this run before
)
USER_VISIBLE = {  # kind of target -> which of the two times a user waits, and why
    "virtual machine": (LATENCY_MS, ReasonCode.REFUSED_DURING_START),
    "dyno": (TIME_TO_FIRST_PREDICTION_MS, ReasonCode.ROUTER_HOLDS_REQUESTS),
    "container": (TIME_TO_FIRST_PREDICTION_MS, ReasonCode.CLOUD_RUN_HOLDS_REQUESTS),
    "function": (TIME_TO_FIRST_PREDICTION_MS, ReasonCode.CLOUD_FUNCTIONS_HOLDS_REQUESTS),
}
USER_VISIBLE_DEFAULT = LATENCY_MS, ReasonCode.MEASURED_AT_CLIENT

RequestOrder = tuple[float, int, int]  # scheduled_s, block, index in it: an order of all requests to one target


@dataclass(frozen=True)
class ColdStarts:
    """The requests of one target that were meant to meet a new instance."""

    confirmed: tuple[Sample, ...]
    failed: int  # without a right-shaped answer
    discarded: Mapping[str, int]  # key of DISCARDED -> answers that prove nothing

    @property
    def attempted(self) -> int:
        return len(self.confirmed) + self.failed + sum(self.discarded.values())


def find_cold_starts(samples: Sequence[Sample], scenario: str) -> ColdStarts:
    """The proven cold starts of a scenario. `samples` are all of one target, warm-up and no-ops included."""
    first_seen_at = first_seen(samples)
    confirmed, failed, discarded = [], 0, Counter[str]()
    for sample in (s for s in samples if s.scenario == scenario):
        if sample.error is not None:
            failed += 1
        elif discard_reason := _discard_reason(sample, first_seen_at):
            discarded[discard_reason] += 1
        else:
            confirmed.append(sample)
    return ColdStarts(tuple(confirmed), failed, {name: discarded[name] for name in DISCARD_REASONS})


def first_seen(samples: Iterable[Sample]) -> dict[str, RequestOrder]:
    """When each instance answered for the first time in the run, a failure included."""
    first_seen_at: dict[str, RequestOrder] = {}
    for sample in samples:
        if sample.instance_id is not None:
            first_seen_at[sample.instance_id] = min(
                _request_order(sample), first_seen_at.get(sample.instance_id, _request_order(sample))
            )
    return first_seen_at


def _discard_reason(sample: Sample, first_seen_at: Mapping[str, RequestOrder]) -> str | None:
    """Why the answer proves no cold start, a key of DISCARDED; None when it does."""
    if sample.instance_id is None or sample.instance_request_number is None:
        return "unmarked"
    if sample.instance_request_number != 1:
        return "not_first"
    return None if first_seen_at[sample.instance_id] == _request_order(sample) else "known_instance"


def _request_order(sample: Sample) -> RequestOrder:
    return sample.scheduled_s, sample.block, sample.index_in_block


def expected_labels(labels: Sequence[int], samples: Iterable[Sample], reference: Iterable[Sample]) -> dict[int, int]:
    """What a correct prediction of each picture is: the model's own, whether it is right about the picture or not.

    From the reference; without one from the target's answers once it was warm; else from the picture's true class.
    """
    warm_labels = {
        s.image_index: s.predicted_class
        for s in samples
        if s.scenario not in (COLD, IDLE) and s.predicted_class is not None
    }
    reference_labels = {s.image_index: s.predicted_class for s in reference if s.predicted_class is not None}
    return dict(enumerate(labels)) | warm_labels | reference_labels


def cold_start_metrics(target_run: TargetRun, samples: Sequence[Sample], expected: Mapping[int, int]) -> dict[str, Any]:
    """The `cold_start_ms` of report.json for one target.

    samples: all of the target, warm-up and no-ops included. known: picture -> its correct prediction.
    """
    warm_p50 = percentile([s.latency_ms for s in samples if s.scenario == SINGLE and _is_measured(s)], 0.5)
    metrics: dict[str, Any] = {"warm_ms": warm_p50.to_report()}
    for kind, scenario in SCENARIO_OF_START.items():
        cold_starts = find_cold_starts(samples, scenario)
        metrics[kind] = (
            _start_metrics(target_run, kind, cold_starts, warm_p50, expected)
            if cold_starts.attempted
            else unavailable(NOT_TESTED_CODE[kind])
        )
    return metrics


def startup_s_for_billing(cold_start: Mapping[str, Any]) -> float | None:
    """Seconds from nothing to the first answer, for the bill: the natural median if there is one, else the forced one.

    Neither where instances had been started before they were asked.
    """
    for kind in (IDLE_START, FORCED_START):
        start = cold_start[kind]
        if "phases_ms" in start and not start["phases_ms"]["in_advance"]:
            value = start[start["phases_ms"]["of"]]["p50"]["value"]
            if value is not None:
                return value / 1000
    return None


def user_visible_metric(target_run: TargetRun, kind: str) -> tuple[str, ReasonCode]:
    """Which of the two times a user of that platform waits, and why."""
    target = TARGETS.get(target_run.target or "")
    if target is None or kind == IDLE_START or not (target_run.twin or target.kind == "virtual machine"):
        return USER_VISIBLE_DEFAULT
    return USER_VISIBLE[target.kind]


def _start_metrics(
    target_run: TargetRun, kind: str, cold_starts: ColdStarts, warm_p50: Estimate, expected: Mapping[int, int]
) -> dict[str, Any]:
    """One way to start: how many were asked and proven, the two times, what is felt, the phases."""
    correct_starts = [s for s in cold_starts.confirmed if s.predicted_class == expected.get(s.image_index)]
    timed_starts = [s for s in correct_starts if TIME_TO_FIRST_PREDICTION in s.startup_ms]
    first_prediction_ms, latency_ms = (
        [s.startup_ms[TIME_TO_FIRST_PREDICTION] for s in timed_starts],
        [s.latency_ms for s in cold_starts.confirmed],
    )
    visible_metric, why = user_visible_metric(target_run, kind)
    gaps_s = [s.gap_s for s in cold_starts.confirmed if s.gap_s is not None]
    return {
        "asked": cold_starts.attempted,
        "proven": len(cold_starts.confirmed),
        "failed": cold_starts.failed,
        "discarded": dict(cold_starts.discarded),
        "incorrect": len(cold_starts.confirmed) - len(correct_starts),
        "proven_share": proportion(
            len(cold_starts.confirmed), cold_starts.attempted - cold_starts.failed, ReasonCode.NO_RESPONSES
        ).to_report(),
        "latency_ms": _p50_and_p95(latency_ms),
        "latency_with_failures_ms": _p50_and_p95([*latency_ms, *[math.inf] * cold_starts.failed]),
        "create_ms": _p50_and_p95(first_prediction_ms)
        if kind == FORCED_START
        else dict.fromkeys(("p50", "p95"), unavailable(ReasonCode.START_COMMAND_NOT_OBSERVABLE)),
        "felt": {"figure": visible_metric, "why": reason(why)},
        "overhead_ms": _overhead_over_warm(
            percentile(first_prediction_ms if visible_metric == TIME_TO_FIRST_PREDICTION_MS else latency_ms, 0.5),
            warm_p50,
        ).to_report(),
        "phases_ms": startup_phase_metrics(timed_starts, STARTUP_PHASES, TIME_TO_FIRST_PREDICTION_MS)
        if target_run.twin and kind == FORCED_START
        else startup_phase_metrics(cold_starts.confirmed, SERVICE_PHASES, LATENCY_MS),
        "gap_s": {"least": min(gaps_s), "most": max(gaps_s)} if gaps_s else None,
    }


def startup_phase_metrics(samples: Sequence[Sample], phase_names: Sequence[str], total_metric: str) -> dict[str, Any]:
    """The phases of a start as medians, and the rest that makes them add up to the median of the whole.

    An instance may have been started before the request that it answered first, as when a platform tries a new
    revision. Such a request did not wait for the phases; it is left out of them, and counted.
    """
    with_phases = [s for s in samples if all(name in s.startup_ms for name in phase_names)]
    totals_ms = [
        s.startup_ms[TIME_TO_FIRST_PREDICTION] if total_metric == TIME_TO_FIRST_PREDICTION_MS else s.latency_ms
        for s in with_phases
    ]
    within_request = [
        (s, total_ms)
        for s, total_ms in zip(with_phases, totals_ms, strict=True)
        if sum(s.startup_ms[name] for name in phase_names) <= total_ms
    ]
    total = percentile([total_ms for _, total_ms in within_request], 0.5)
    counts = {"n": len(within_request), "in_advance": len(with_phases) - len(within_request)}
    metrics: dict[str, Any] = {"of": total_metric, **counts, "whole": total.to_report(), "parts": {}}
    if total.value is None:
        return metrics
    phases_ms = {
        name: percentile([s.startup_ms[name] for s, _ in within_request], 0.5).to_report() for name in phase_names
    }
    overhead_ms = round(total.value - sum(phase["value"] for phase in phases_ms.values()), 3)
    return metrics | {
        "parts": phases_ms
        | {PLATFORM_OVERHEAD: {"value": overhead_ms, "low": None, "high": None, "n": len(within_request)}}
    }


def _is_measured(sample: Sample) -> bool:
    return sample.phase == "measure" and sample.error is None


def _p50_and_p95(values: Sequence[float]) -> dict[str, Any]:
    return {"p50": percentile(values, 0.5).to_report(), "p95": percentile(values, 0.95).to_report()}


def _overhead_over_warm(estimate: Estimate, warm_p50: Estimate) -> Estimate:
    """By how much it is more than the warm median, whose own interval is small beside that of a start."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    if warm_p50.value is None:
        return Estimate(None, reason=reason(ReasonCode.NO_WARM_MEDIAN, cause=warm_p50.reason))
    warm_ms = warm_p50.value
    return replace(estimate, value=estimate.value - warm_ms, low=estimate.low - warm_ms, high=estimate.high - warm_ms)
