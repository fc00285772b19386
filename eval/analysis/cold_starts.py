"""Cold starts: which requests are confirmed to be such, and how long a user waits. Pure.

    confirmed the response headers show the first request (X-Request-Ordinal is 1) of an instance ID not seen before.
              Never guessed: a slow request is no cold start for being slow, and a fast one can be a cold start. What is
              not confirmed is in no figure, and counted by reason.
    forced    a twin was restarted, or a new revision was made; scenario "cold"
    idle      no request was sent for a while; scenario "idle"

There are two times, because platforms differ in which of them a user waits. `time_to_first_prediction_ms` runs from the
start command to the first correct prediction. `latency_ms` is the first request alone: where a platform holds requests
while an instance starts, the start is in it; a twin has no platform, so there it begins when the twin is ready.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eval.codes import Reason, ReasonCode, Unavailable, reason, unavailable
from eval.plan.config import COLD, IDLE, SINGLE
from eval.samples.columns import NONE, Samples, record_of
from eval.samples.model import PROCESS_START, TIME_TO_FIRST_PREDICTION, Sample, TargetRun
from eval.samples.rounds import split_after_pause
from eval.stats.intervals import Estimate, numbered_instances, percentile, proportion
from infra.targets import TARGETS
from service.classifier import PHASES as SERVICE_PHASES

FORCED_START, IDLE_START = "forced", "idle"  # keys of report.json
SCENARIO_OF_START = {FORCED_START: COLD, IDLE_START: IDLE}
NOT_TESTED_CODE = {FORCED_START: ReasonCode.NO_FORCED_START, IDLE_START: ReasonCode.NO_IDLE_GAP}
STARTUP_PHASES = (PROCESS_START, *SERVICE_PHASES)
TIME_TO_FIRST_PREDICTION_MS, LATENCY_MS = "time_to_first_prediction_ms", "latency_ms"  # the two times
PLATFORM_OVERHEAD = "platform_overhead"  # what is left of a start: the network, the platform, the prediction
DISCARD_REASONS = (
    "missing_headers",  # the response does not say which instance sent it, or how many it had sent
    "not_first_request",  # the instance had sent predictions before
    "instance_seen_before",  # the instance had responded in this run before
)
USER_VISIBLE = {  # kind of target -> which of the two times a user waits, and why
    "virtual machine": (LATENCY_MS, ReasonCode.REFUSED_DURING_START),
    "dyno": (TIME_TO_FIRST_PREDICTION_MS, ReasonCode.ROUTER_HOLDS_REQUESTS),
    "container": (TIME_TO_FIRST_PREDICTION_MS, ReasonCode.CLOUD_RUN_HOLDS_REQUESTS),
    "function": (TIME_TO_FIRST_PREDICTION_MS, ReasonCode.CLOUD_FUNCTIONS_HOLDS_REQUESTS),
    "endpoint": (LATENCY_MS, ReasonCode.ROUTED_WHEN_HEALTHY),
}
USER_VISIBLE_DEFAULT = LATENCY_MS, ReasonCode.MEASURED_AT_CLIENT

RequestOrder = tuple[float, int, int]  # scheduled_s, block, index in it: an order of all requests to one target


@dataclass(frozen=True)
class ColdStarts:
    """The requests of one target that were meant to reach a new instance."""

    confirmed: tuple[Sample, ...]
    failed: int  # without a valid response
    discarded: Mapping[str, int]  # of DISCARD_REASONS -> responses that confirm nothing

    @property
    def attempted(self) -> int:
        return len(self.confirmed) + self.failed + sum(self.discarded.values())


@dataclass(frozen=True)
class UserVisible:
    """Which of the two times a user of that platform waits."""

    metric: str
    reason: Reason


@dataclass(frozen=True)
class StartupPhases:
    """The phases of a start."""

    total_metric: str  # which of the two times is the total
    n: int
    prewarmed: int  # instances that had been started before their first request, and are left out
    total: Estimate  # median
    phases: dict[str, Estimate]  # medians, and what is left


@dataclass(frozen=True)
class Range:
    min: float
    max: float


@dataclass(frozen=True)
class StartReport:
    """One way to start. Times are of confirmed cold starts."""

    attempted: int
    confirmed: int
    failed: int
    discarded: dict[str, int]  # of DISCARD_REASONS -> responses
    incorrect: int
    confirmed_fraction: Estimate  # of the responses
    latency_ms: dict[str, Estimate]
    latency_with_failures_ms: dict[str, Estimate]
    time_to_first_prediction_ms: dict[str, Estimate] | dict[str, Unavailable]
    user_visible: UserVisible
    over_warm_ms: Estimate  # what a user waits, over the warm median
    phases_ms: StartupPhases
    idle_gap_s: Range | None


@dataclass(frozen=True)
class ColdStartReport:
    """Both ways to start."""

    warm_p50_ms: Estimate
    forced: StartReport | Unavailable
    idle: StartReport | Unavailable


def find_cold_starts(samples: Sequence[Sample], scenario: str) -> ColdStarts:
    """The confirmed cold starts of a scenario. `samples` are all of one target, warm-up and no-ops included."""
    samples = Samples.of(samples)
    starts = samples.with_("scenario", scenario).with_("phase", "measure")
    first_seen_at = first_seen(samples) if starts else {}
    confirmed, failed, discarded = [], 0, Counter[str]()
    for sample in starts:
        if sample.error is not None:
            failed += 1
        elif discard_reason := _discard_reason(sample, first_seen_at):
            discarded[discard_reason] += 1
        else:
            confirmed.append(record_of(sample))
    return ColdStarts(tuple(confirmed), failed, {name: discarded[name] for name in DISCARD_REASONS})


def first_seen(samples: Iterable[Sample]) -> dict[str, RequestOrder]:
    """When each instance responded for the first time in the run, a failure included."""
    first_seen_at: dict[str, RequestOrder] = {}
    for sample in samples:
        if sample.instance_id is not None:
            first_seen_at[sample.instance_id] = min(
                _request_order(sample), first_seen_at.get(sample.instance_id, _request_order(sample))
            )
    return first_seen_at


def _discard_reason(sample: Sample, first_seen_at: Mapping[str, RequestOrder]) -> str | None:
    """Why the response confirms no cold start, one of DISCARD_REASONS; None when it does."""
    if sample.instance_id is None or sample.instance_request_number is None:
        return "missing_headers"
    if sample.instance_request_number != 1:
        return "not_first_request"
    return None if first_seen_at[sample.instance_id] == _request_order(sample) else "instance_seen_before"


def _request_order(sample: Sample) -> RequestOrder:
    return sample.scheduled_s, sample.block, sample.index_in_block


def expected_labels(labels: Sequence[int], samples: Iterable[Sample], reference: Iterable[Sample]) -> dict[int, int]:
    """What a correct prediction of each image is: the model's own, whether that is the true class or not.

    From the reference; without one from the target's predictions once it was warm; else the image's true class.
    """
    samples = Samples.of(samples)
    warm = samples.where(~samples.equal("scenario", COLD, IDLE))
    return dict(enumerate(labels)) | _predicted_labels(warm) | _predicted_labels(Samples.of(reference))


def _predicted_labels(samples: Samples) -> dict[int, int]:
    """Image -> what was predicted of it last."""
    predicted = samples.where(samples.array("predicted_class") != NONE)
    return dict(zip(predicted.array("image_index").tolist(), predicted.array("predicted_class").tolist(), strict=True))


def cold_start_metrics(
    target_run: TargetRun, samples: Sequence[Sample], expected: Mapping[int, int]
) -> ColdStartReport:
    """Both ways to start. samples: all of the target, warm-up and no-ops too. expected: image -> correct prediction."""
    measured = Samples.of(samples).with_("scenario", SINGLE).with_("phase", "measure").chronological()
    warm = split_after_pause(measured)[1].succeeded
    warm_p50 = percentile(warm.array("latency_ms"), 0.5, numbered_instances(warm.instances()))

    def start_report(kind: str) -> StartReport | Unavailable:
        cold_starts = find_cold_starts(samples, SCENARIO_OF_START[kind])
        if not cold_starts.attempted:
            return unavailable(NOT_TESTED_CODE[kind])
        return _start_report(target_run, kind, cold_starts, warm_p50, expected)

    return ColdStartReport(warm_p50, start_report(FORCED_START), start_report(IDLE_START))


def startup_s_for_billing(cold_starts: ColdStartReport) -> float | None:
    """Seconds from nothing to the first response, for the bill: the natural median if there is one, else the forced.

    Neither where instances had been started before they were sent a request.
    """
    for start in (cold_starts.idle, cold_starts.forced):
        if isinstance(start, StartReport) and not start.phases_ms.prewarmed:
            times_ms = start.latency_ms
            if start.phases_ms.total_metric == TIME_TO_FIRST_PREDICTION_MS:
                times_ms = start.time_to_first_prediction_ms
            p50 = times_ms["p50"]
            if p50.value is not None:
                return p50.value / 1000
    return None


def user_visible_metric(target_run: TargetRun, kind: str) -> tuple[str, ReasonCode]:
    """Which of the two times a user of that platform waits, and why."""
    target = TARGETS.get(target_run.target or "")
    if target is None or kind == IDLE_START or not (target_run.twin or target.kind == "virtual machine"):
        return USER_VISIBLE_DEFAULT
    return USER_VISIBLE[target.kind]


def _start_report(
    target_run: TargetRun, kind: str, cold_starts: ColdStarts, warm_p50: Estimate, expected: Mapping[int, int]
) -> StartReport:
    correct_starts = [s for s in cold_starts.confirmed if s.predicted_class == expected.get(s.image_index)]
    timed_starts = [s for s in correct_starts if TIME_TO_FIRST_PREDICTION in s.startup_ms]
    first_prediction_ms = [s.startup_ms[TIME_TO_FIRST_PREDICTION] for s in timed_starts]
    latency_ms = [s.latency_ms for s in cold_starts.confirmed]
    visible_metric, why = user_visible_metric(target_run, kind)
    visible_ms = first_prediction_ms if visible_metric == TIME_TO_FIRST_PREDICTION_MS else latency_ms
    not_observable = unavailable(ReasonCode.START_COMMAND_NOT_OBSERVABLE)
    gaps_s = [s.idle_gap_s for s in cold_starts.confirmed if s.idle_gap_s is not None]
    return StartReport(
        attempted=cold_starts.attempted,
        confirmed=len(cold_starts.confirmed),
        failed=cold_starts.failed,
        discarded=dict(cold_starts.discarded),
        incorrect=len(cold_starts.confirmed) - len(correct_starts),
        confirmed_fraction=proportion(
            len(cold_starts.confirmed), cold_starts.attempted - cold_starts.failed, ReasonCode.NO_RESPONSES
        ),
        latency_ms=_p50_and_p95(latency_ms),
        latency_with_failures_ms=_p50_and_p95([*latency_ms, *[math.inf] * cold_starts.failed]),
        time_to_first_prediction_ms=_p50_and_p95(first_prediction_ms)
        if kind == FORCED_START
        else dict.fromkeys(("p50", "p95"), not_observable),
        user_visible=UserVisible(visible_metric, reason(why)),
        over_warm_ms=_over_warm(percentile(visible_ms, 0.5), warm_p50),
        phases_ms=startup_phases(timed_starts, STARTUP_PHASES, TIME_TO_FIRST_PREDICTION_MS)
        if target_run.twin and kind == FORCED_START
        else startup_phases(cold_starts.confirmed, SERVICE_PHASES, LATENCY_MS),
        idle_gap_s=Range(min(gaps_s), max(gaps_s)) if gaps_s else None,
    )


def startup_phases(samples: Sequence[Sample], phase_names: Sequence[str], total_metric: str) -> StartupPhases:
    """The phases of a start as medians, and the rest that makes them add up to the median of the total.

    An instance may have been started before its first request, as when a platform tries a new revision. Such a request
    did not wait for the phases; it is left out of them, and counted.
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
    n, phases = len(within_request), {}
    if total.value is not None:
        phases = {name: percentile([s.startup_ms[name] for s, _ in within_request], 0.5) for name in phase_names}
        overhead_ms = round(total.value - sum(phase.value or 0.0 for phase in phases.values()), 3)
        phases[PLATFORM_OVERHEAD] = Estimate(overhead_ms, n=n)
    return StartupPhases(total_metric, n, len(with_phases) - n, total, phases)


def _p50_and_p95(values: Sequence[float]) -> dict[str, Estimate]:
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95)}


def _over_warm(estimate: Estimate, warm_p50: Estimate) -> Estimate:
    """By how much it is more than the warm median, whose own interval is small beside that of a start."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    if warm_p50.value is None:
        return Estimate(None, reason=reason(ReasonCode.NO_WARM_MEDIAN, cause=warm_p50.reason))
    warm_ms = warm_p50.value
    return replace(estimate, value=estimate.value - warm_ms, low=estimate.low - warm_ms, high=estimate.high - warm_ms)
